"""The Merkle tree over an epoch's payments: what the chain stores of the table, and the proof that a claim shows."""

from collections.abc import Sequence

from pluralis_lab.contributions.keys import checksum_address, keccak
from pluralis_lab.errors import EvidenceError

EMPTY_ROOT = bytes(32)
"""The root of an epoch in which nothing is paid."""


def leaf(run_id: str, epoch: int, index: int, account: str, amount: int, data_hash: str) -> bytes:
    """Return keccak256(keccak256(abi.encode(runId, epoch, index, account, amount, dataHash))), 32 bytes.

    Hashed twice, so that no inner node of 64 bytes can be presented as a leaf (OpenZeppelin's StandardMerkleTree).

    run_id, data_hash : 64 hexadecimal digits, with or without 0x; amount : wei
    Raises EvidenceError for a value that does not fit its Solidity type.
    """
    for name, value, bits in (("epoch", epoch, 64), ("index", index, 256), ("amount", amount, 256)):
        if not 0 <= value < 1 << bits:
            raise EvidenceError(f"{name}={value} is no uint{bits}")
    words = (
        _word(run_id, "run_id"),
        epoch.to_bytes(32, "big"),
        index.to_bytes(32, "big"),
        bytes.fromhex(checksum_address(account)[2:]).rjust(32, b"\0"),
        amount.to_bytes(32, "big"),
        _word(data_hash, "data_hash"),
    )
    return keccak(keccak(b"".join(words)))


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over `leaves` in their order, 32 bytes; `EMPTY_ROOT` for none."""
    return _levels(leaves)[-1][0] if leaves else EMPTY_ROOT


def proof(leaves: Sequence[bytes], position: int) -> list[bytes]:
    """Return the siblings from leaf `position` up to the root; shorter where an odd node was promoted.

    Raises EvidenceError when there is no such leaf.
    """
    if not 0 <= position < len(leaves):
        raise EvidenceError(f"position={position}, but the tree has {len(leaves)} leaves")
    siblings = []
    for level in _levels(leaves)[:-1]:
        if position ^ 1 < len(level):
            siblings.append(level[position ^ 1])
        position >>= 1
    return siblings


def verify(leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether `proof` leads from `leaf` to `root`, as OpenZeppelin's MerkleProof.verify does."""
    node = leaf
    for sibling in proof:
        node = _parent(node, sibling)
    return node == root


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        level = levels[-1]
        parents = [_parent(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        levels.append(parents + level[len(parents) * 2 :])
    return levels


def _parent(a: bytes, b: bytes) -> bytes:
    return keccak(a + b if a < b else b + a)


def _word(text: str, name: str) -> bytes:
    try:
        word = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        word = b""
    if len(word) != 32:
        raise EvidenceError(f"{name}={text!r} is not 32 bytes; give 64 hexadecimal digits")
    return word
