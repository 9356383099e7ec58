"""Closing an epoch: the line that says which statements it holds and who is paid, and the check before one attests it."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pluralis_lab.contributions import merkle
from pluralis_lab.contributions.admission import Admission
from pluralis_lab.contributions.attestation import bytes32, epoch_typed_data
from pluralis_lab.contributions.receipts import KINDS, Statement, statement_hash
from pluralis_lab.contributions.shape import RunShape
from pluralis_lab.contributions.shares import amounts_wei, emission_wei, shares
from pluralis_lab.contributions.tally import EpochTable, tally
from pluralis_lab.errors import EvidenceError

_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Close:
    """One line of evidence/closes.jsonl.

    statements : hashes, sorted; listing : kind, round, worker and signer of each, so that a missing one has a name
    data_hash : SHA-256 over the concatenated statement hashes; model_hash : the same over `state_digests`, one a stage
    root : Merkle root over `amounts`, which are (index, account, wei) in the order of the accounts
    shares : by participant; attestations : {"attester", "address", "signature"} of each who signed
    """

    epoch: int
    run: str
    attempt: int
    statements: tuple[str, ...]
    listing: tuple[tuple[str, int, str, str], ...]
    data_hash: str
    state_digests: tuple[str, ...]
    model_hash: str
    root: str
    amounts: tuple[tuple[int, str, int], ...]
    shares: Mapping[str, Fraction]
    attestations: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def parse(cls, line: object) -> "Close":
        """Read a line. Raises EvidenceError that says what is malformed; whether it is *right* is `check_close`'s matter."""
        if not isinstance(line, Mapping):
            raise EvidenceError(f"close {str(line)[:100]} is no object")
        try:
            close = cls(
                epoch=line["epoch"],
                run=bytes32(line["run"], "run")[2:],
                attempt=line["attempt"],
                statements=tuple(line["statements"]),
                listing=tuple((kind, round, worker, signer) for kind, round, worker, signer in line["listing"]),
                data_hash=bytes32(line["data_hash"], "data_hash")[2:],
                state_digests=tuple(bytes32(digest, "state_digests")[2:] for digest in line["state_digests"]),
                model_hash=bytes32(line["model_hash"], "model_hash")[2:],
                root=bytes32(line["root"], "root"),
                amounts=tuple((index, account, int(wei)) for index, account, wei in line["amounts"]),
                shares={name: Fraction(num, den) for name, (num, den) in line["shares"].items()},
                attestations=tuple(dict(attestation) for attestation in line.get("attestations", ())),
            )
        except KeyError as error:
            raise EvidenceError(f"close of epoch {line.get('epoch')} has no {error}") from error
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise EvidenceError(f"close of epoch {line.get('epoch')} is malformed: {error}") from error
        for name, value, bits in (("epoch", close.epoch, 64), ("attempt", close.attempt, 32)):
            if type(value) is not int or not 0 <= value < 1 << bits:
                raise EvidenceError(f"close.{name}={value!r}; it is a uint{bits}")
        if any(not isinstance(hash, str) or not _HEX64.fullmatch(hash) for hash in close.statements):
            raise EvidenceError(f"close of epoch {close.epoch}: its statements are hashes of 64 hexadecimal digits")
        if any(a >= b for a, b in itertools.pairwise(close.statements)):
            raise EvidenceError(f"close of epoch {close.epoch}: its statements ascend, each once")
        if len(close.listing) != len(close.statements) or any(kind not in KINDS for kind, *_ in close.listing):
            raise EvidenceError(f"close of epoch {close.epoch}: its listing names kind, round, worker, signer of each statement")
        if close.to_dict() != {"attestations": [], **line}:
            raise EvidenceError(f"close of epoch {close.epoch} has unknown fields, or values in another form than close_epoch's")
        return close

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence line."""
        return {
            "epoch": self.epoch,
            "run": self.run,
            "attempt": self.attempt,
            "statements": list(self.statements),
            "listing": [list(entry) for entry in self.listing],
            "data_hash": self.data_hash,
            "state_digests": list(self.state_digests),
            "model_hash": self.model_hash,
            "root": self.root,
            "amounts": [[index, account, str(wei)] for index, account, wei in self.amounts],
            "shares": {name: [share.numerator, share.denominator] for name, share in self.shares.items()},
            "attestations": [dict(attestation) for attestation in self.attestations],
        }

    def typed_data(self, shape: RunShape) -> dict[str, Any]:
        """Return what an attester's account signs for this line (EIP-712 `Epoch`)."""
        return epoch_typed_data(
            self.run,
            self.epoch,
            self.attempt,
            self.root,
            self.data_hash,
            self.model_hash,
            shape.chain_id,
            shape.ledger,
        )


def close_epoch(
    shape: RunShape,
    epoch: int,
    statements: Iterable[object],
    authorisations: Iterable[object],
    state_digests: Sequence[str],
    attempt: int = 0,
) -> dict[str, Any]:
    """Return the closes.jsonl line of `epoch`, not attested yet.

    It lists the statements that count (`Admission.screen`), and pays the emission of the epoch by their tally.

    state_digests : hexadecimal SHA-256 of each stage's state at the end of the epoch, in the order of the stages
    Raises EvidenceError when there is not one digest a stage.
    """
    admitted, _ = Admission(shape, authorisations).screen(epoch, statements)
    return build_close(shape, admitted, tally(shape, epoch, admitted), state_digests, attempt).to_dict()


def build_close(
    shape: RunShape,
    admitted: Sequence[Statement],
    table: EpochTable,
    state_digests: Sequence[str],
    attempt: int = 0,
    data_hash: str | None = None,
) -> Close:
    """Return the close over `admitted` statements, whose tally is `table`. Raises EvidenceError as `close_epoch` does.

    data_hash : only for an audit of incomplete evidence, which looks for the root over the hash that was closed with
    """
    if len(state_digests) != shape.stages:
        raise EvidenceError(f"{len(state_digests)} state digests, but the run has {shape.stages} stages; give one each")
    digests = tuple(bytes32(digest, "state_digests")[2:] for digest in state_digests)
    ordered = sorted(admitted, key=lambda statement: statement.hash)
    hashes = tuple(statement.hash for statement in ordered)
    share_of = shares(table.units)
    paid = amounts_wei(share_of, shape.participants, emission_wei(shape.emission, table.epoch))
    amounts = tuple((index, account, wei) for index, (account, wei) in enumerate(paid.items()))
    data_hash = hash_of_hashes(hashes) if data_hash is None else data_hash
    return Close(
        epoch=table.epoch,
        run=shape.run_id,
        attempt=attempt,
        statements=hashes,
        listing=tuple((s.kind, s.round, s.worker, s.signer) for s in ordered),
        data_hash=data_hash,
        state_digests=digests,
        model_hash=hash_of_hashes(digests),
        root="0x" + merkle.root(leaves(shape.run_id, table.epoch, amounts, data_hash)).hex(),
        amounts=amounts,
        shares=share_of,
    )


def check_close(
    shape: RunShape,
    close: Mapping[str, Any],
    statements: Iterable[object],
    authorisations: Iterable[object],
    attester: str | None = None,
    state_digests: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Return the typed data to sign when `close` is right in every field; what an attester runs before it signs.

    statements : the evidence lines that the attester holds, all that `close` lists among them
    attester : whose workers' statements have to be in it (a participant's name); None: every valid one in `statements`
    state_digests : digest by stage, of the stages whose state the attester knows
    Raises EvidenceError when one of its own statements is missing, one that is listed is not at hand or does not count,
    or a field is not what follows from them.
    """
    proposed = Close.parse(close)
    if proposed.run != shape.run_id:
        raise EvidenceError(f"epoch {proposed.epoch} is closed for run {proposed.run[:16]}, not {shape.run_id[:16]}")
    admission = Admission(shape, authorisations)
    listed = dict(zip(proposed.statements, proposed.listing, strict=True))
    held: dict[str, Statement] = {}
    for line in statements:
        try:
            statement = admission.admit(proposed.epoch, line)
        except EvidenceError as error:
            if isinstance(line, Mapping) and _hash_or_none(line) in listed:
                raise EvidenceError(f"epoch {proposed.epoch} lists a statement that does not count: {error}") from error
            continue
        held[statement.hash] = statement
        is_own = attester is None or shape.seats[statement.signer].participant == attester
        if is_own and statement.hash not in listed:
            raise EvidenceError(f"epoch {proposed.epoch} leaves out {statement}; propose a close that lists it")
    for hash, (kind, round, worker, signer) in listed.items():
        if hash not in held:
            raise EvidenceError(
                f"epoch {proposed.epoch} lists {hash} ({kind} of {worker} in round {round}, counter-signed by {signer}), "
                "which is not at hand; fetch it before attesting"
            )
    for stage, digest in (state_digests or {}).items():
        if proposed.state_digests[stage : stage + 1] != (digest,):
            raise EvidenceError(f"epoch {proposed.epoch} gives stage {stage} another state than {digest[:16]}")
    admitted = [held[hash] for hash in proposed.statements]
    table = tally(shape, proposed.epoch, admitted)
    expected = build_close(shape, admitted, table, proposed.state_digests, proposed.attempt)
    for name, value in expected.to_dict().items():
        if name != "attestations" and proposed.to_dict()[name] != value:
            raise EvidenceError(f"epoch {proposed.epoch} has a wrong {name}: {proposed.to_dict()[name]}, recomputed {value}")
    return proposed.typed_data(shape)


def leaves(run_id: str, epoch: int, amounts: Iterable[tuple[int, str, int]], data_hash: str) -> list[bytes]:
    """Return the Merkle leaf of each (index, account, wei), in their order."""
    return [merkle.leaf(run_id, epoch, index, account, wei, data_hash) for index, account, wei in amounts]


def claim_proof(close: Mapping[str, Any], account: str) -> tuple[int, int, list[bytes]] | None:
    """Return (index, wei, proof) with which `account` claims its part of a closed epoch; None when it has none."""
    parsed = Close.parse(close)
    nodes = leaves(parsed.run, parsed.epoch, parsed.amounts, parsed.data_hash)
    for position, (index, holder, wei) in enumerate(parsed.amounts):
        if holder == account:
            return index, wei, merkle.proof(nodes, position)
    return None


def hash_of_hashes(hashes: Iterable[str]) -> str:
    """Return SHA-256 over the concatenated 32-byte hashes, in their order, as 64 hexadecimal digits."""
    return hashlib.sha256(b"".join(bytes.fromhex(hash) for hash in hashes)).hexdigest()


def _hash_or_none(line: Mapping[str, Any]) -> str | None:
    try:
        return statement_hash(line)
    except EvidenceError:
        return None
