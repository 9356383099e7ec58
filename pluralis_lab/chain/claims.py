"""The tables behind the posted roots: who may claim what, with the proofs, kept beside the chain for later claims."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pluralis_lab.chain.private_file import write_private
from pluralis_lab.contributions import merkle
from pluralis_lab.errors import ChainError


@dataclass(frozen=True)
class Claim:
    """One leaf of an epoch's table. `amount` is token wei; `leaves` are all of the table and `place` is this one's among them."""

    epoch: int
    index: int
    account: str
    amount: int
    leaves: tuple[bytes, ...] = field(repr=False)
    place: int

    @property
    def proof(self) -> list[bytes]:
        """The 32-byte siblings from the leaf to the root, made when they are needed: most claims of a table are done already."""
        return merkle.proof(self.leaves, self.place)


@dataclass(frozen=True)
class Close:
    """A closed epoch as it is posted. Hashes are 32 bytes; `signatures` maps attester address to 65 bytes."""

    epoch: int
    attempt: int
    root: bytes
    data_hash: bytes
    model_hash: bytes
    claims: tuple[Claim, ...]
    signatures: dict[str, bytes]


def read_close(run_id: str, line: dict[str, Any]) -> Close:
    """A line of closes.jsonl with its proofs. Raises ChainError when it is of another run or its table has another root."""
    epoch = int(line["epoch"])
    if line.get("run", run_id) != run_id:
        raise ChainError(
            f"epoch {epoch} was closed for run {str(line['run'])[:8]}, not for {run_id[:8]}; use that run's evidence"
        )
    rows = sorted((int(index), str(account), int(amount)) for index, account, amount in line["amounts"])
    leaves = tuple(merkle.leaf(run_id, epoch, index, account, amount, line["data_hash"]) for index, account, amount in rows)
    root = _bytes32(line["root"])
    if merkle.root(leaves) != root:
        raise ChainError(f"epoch {epoch}: the table of amounts has another root than 0x{root.hex()}, which was signed; audit it")
    claims = (Claim(epoch, *row, leaves, place) for place, row in enumerate(rows))
    signatures = {a["address"]: bytes.fromhex(a["signature"].removeprefix("0x")) for a in line.get("attestations", ())}
    return Close(
        epoch,
        int(line.get("attempt", 0)),
        root,
        _bytes32(line["data_hash"]),
        _bytes32(line["model_hash"]),
        tuple(claims),
        signatures,
    )


def read_closes(run_id: str, lines: Iterable[dict[str, Any]]) -> list[Close]:
    """All closed epochs in order. Raises ChainError when one epoch was closed twice with different roots."""
    closes: dict[int, Close] = {}
    for line in lines:
        close = read_close(run_id, line)
        earlier = closes.get(close.epoch)
        if earlier is not None and earlier.root != close.root:
            raise ChainError(f"epoch {close.epoch} was closed twice with different roots; audit the run before it is tokenized")
        closes[close.epoch] = close
    return [closes[epoch] for epoch in sorted(closes)]


class ClaimBook:
    """A ledger's tables and the names of accounts, in `<home>/chain/claims/<ledger>.json` (public data)."""

    def __init__(self, home: Path, ledger: str) -> None:
        self._path = home / "chain" / "claims" / f"{ledger.lower()}.json"

    def save(self, run_id: str, lines: Iterable[dict[str, Any]], names: dict[str, str]) -> None:
        """Keep the lines of closes.jsonl, without signatures, and the names by address."""
        kept = [{key: line[key] for key in ("epoch", "root", "data_hash", "model_hash", "amounts")} for line in lines]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._path, json.dumps({"run": run_id, "names": names, "closes": kept}))

    def load(self) -> tuple[list[Claim], dict[str, str]]:
        """All claims and names by address; empty where nothing was tokenized from this home."""
        try:
            book = json.loads(self._path.read_text())
        except FileNotFoundError:
            return [], {}
        claims = [claim for close in read_closes(book["run"], book["closes"]) for claim in close.claims]
        return claims, book["names"]


def _bytes32(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x")).rjust(32, b"\0")
