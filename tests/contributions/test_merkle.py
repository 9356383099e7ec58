import pytest
from eth_abi import encode
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.contributions import merkle
from pluralis_lab.errors import EvidenceError

RUN, DATA = "ab" * 32, "cd" * 32
ACCOUNT = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
leaf_lists = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True)


def open_zeppelin_verify(proof: list[bytes], root: bytes, leaf: bytes) -> bool:
    """MerkleProof.processProof, transcribed from the Solidity: commutativeKeccak256 over the proof in order."""
    computed = leaf
    for element in proof:
        a, b = int.from_bytes(computed, "big"), int.from_bytes(element, "big")
        computed = keccak(computed + element) if a < b else keccak(element + computed)
    return computed == root


@given(leaves=leaf_lists)
def test_every_leaf_is_proven_and_open_zeppelin_accepts_it(leaves):
    root = merkle.root(leaves)
    for position, leaf in enumerate(leaves):
        proof = merkle.proof(leaves, position)
        assert merkle.verify(leaf, proof, root)
        assert open_zeppelin_verify(proof, root, leaf)
        assert len(proof) <= (len(leaves) - 1).bit_length()


@given(leaves=leaf_lists, other=st.binary(min_size=32, max_size=32), data=st.data())
def test_no_other_leaf_passes_with_a_proof_of_the_tree(leaves, other, data):
    position = data.draw(st.integers(0, len(leaves) - 1))
    if other not in leaves:
        assert not merkle.verify(other, merkle.proof(leaves, position), merkle.root(leaves))


@given(leaves=leaf_lists, data=st.data())
def test_a_changed_proof_fails(leaves, data):
    position = data.draw(st.integers(0, len(leaves) - 1))
    proof = merkle.proof(leaves, position)
    if proof:
        i = data.draw(st.integers(0, len(proof) - 1))
        proof[i] = bytes(byte ^ 1 for byte in proof[i])
        assert not merkle.verify(leaves[position], proof, merkle.root(leaves))


uint64, uint256 = st.integers(0, 2**64 - 1), st.integers(0, 2**256 - 1)


@given(epoch=uint64, index=uint256, amount=uint256, account=st.binary(min_size=20, max_size=20))
def test_a_leaf_is_the_ledgers_double_hash_of_the_abi_encoding(epoch, index, amount, account):
    types = ["bytes32", "uint64", "uint256", "address", "uint256", "bytes32"]
    encoded = encode(types, [bytes.fromhex(RUN), epoch, index, "0x" + account.hex(), amount, bytes.fromhex(DATA)])
    assert merkle.leaf(RUN, epoch, index, "0x" + account.hex(), amount, DATA) == keccak(keccak(encoded))


def test_the_smallest_trees_are_what_they_should_be():
    a, b, c = (bytes([n]) * 32 for n in (1, 2, 3))
    assert merkle.root([]) == bytes(32)
    assert merkle.root([a]) == a
    assert merkle.proof([a], 0) == []
    assert merkle.root([b, a]) == keccak(a + b)
    assert merkle.root([a, b, c]) == keccak(b"".join(sorted([keccak(a + b), c])))  # the odd node is promoted
    assert merkle.proof([a, b, c], 2) == [keccak(a + b)]


def test_there_is_no_proof_for_a_leaf_that_is_not_there():
    for position in (-1, 1):
        with pytest.raises(EvidenceError, match="1 leaves"):
            merkle.proof([bytes(32)], position)


@pytest.mark.parametrize(
    "change",
    [{"epoch": 2**64}, {"amount": -1}, {"index": 2**256}, {"account": "0x12"}, {"run_id": "ab"}, {"data_hash": "zz" * 32}],
)
def test_values_that_do_not_fit_their_solidity_type_are_refused(change):
    fields = {"run_id": RUN, "epoch": 0, "index": 0, "account": ACCOUNT, "amount": 1, "data_hash": DATA}
    with pytest.raises(EvidenceError):
        merkle.leaf(**(fields | change))
