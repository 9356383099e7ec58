"""Findings: what is wrong with a piece of evidence, in a form that a person reads and a program compares."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pluralis_lab.contributions.receipts import Statement, statement_hash
from pluralis_lab.errors import EvidenceError

FindingKind = Literal[
    "malformed",  # cannot be a statement, authorisation or close of this run
    "foreign-run",  # signed for another run
    "forged",  # a signature is not by the key it would have to be by
    "unauthorised",  # by a worker that no participant authorised, or that had no part in that work
    "replayed",  # a statement of another epoch
    "missing",  # closed over, and not in the evidence
    "duplicate",  # as a fault: the same line twice; as a note: the same work claimed by two workers
    "wrong-shares",  # the table does not follow from the statements
    "wrong-root",  # the Merkle root or a hash does not follow from the table
    "bad-attestation",  # not by an attester of this run, or over another epoch
    "no-quorum",  # too few attesters
    "late",  # note: valid and not closed over, so neither counted nor paid
    "open",  # note: an epoch with statements that is not closed (yet)
]


@dataclass(frozen=True)
class Finding:
    """One fault or note about the evidence.

    epoch : None for what belongs to no epoch (authorisations)
    subject : what it is about; detail : what is wrong with it
    statement : for a statement its {"hash", "kind", "round", "worker", "signer"}, as far as they are known
    """

    kind: FindingKind
    epoch: int | None
    subject: str
    detail: str
    statement: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        where = "" if self.epoch is None else f" in epoch {self.epoch}"
        return f"{self.kind}{where}: {self.subject}: {self.detail}"


class RefusedError(EvidenceError):
    """A statement that does not count; `kind` says which finding it is."""

    def __init__(self, kind: FindingKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: FindingKind = kind


def statement_finding(kind: FindingKind, epoch: int, line: object, detail: str) -> Finding:
    """Return a finding about one evidence line, named as exactly as the line, which may be garbage, allows."""
    name = statement_name(line)
    return Finding(kind, epoch, _subject(name), detail, name)


def missing_finding(epoch: int, hash: str, listing: tuple[str, int, str, str]) -> Finding:
    """Return the finding for a statement that an epoch was closed over and that is not there."""
    kind, round, worker, signer = listing
    name = {"hash": hash, "kind": kind, "round": round, "worker": worker, "signer": signer}
    return Finding("missing", epoch, _subject(name), "the epoch was closed over it, but the evidence lacks it", name)


def statement_name(line: object) -> dict[str, Any]:
    """Return {"hash", "kind", "round", "worker", "signer"} of a line, with None for what cannot be read."""
    if isinstance(line, Statement):
        line = line.to_dict()
    body = line.get("body") if isinstance(line, Mapping) else None
    body = body if isinstance(body, Mapping) else {}
    try:
        name: dict[str, Any] = {"hash": statement_hash(line) if isinstance(line, Mapping) else None}
    except EvidenceError:
        name = {"hash": None}
    for field, type_ in (("kind", str), ("round", int), ("worker", str), ("signer", str)):
        value = body.get(field)
        name[field] = value if isinstance(value, type_) else None
    return name


def _subject(name: Mapping[str, Any]) -> str:
    return (
        f"statement {name['hash'] or '(unreadable)'} ({name['kind']} of {name['worker']} in round {name['round']}, "
        f"counter-signed by {name['signer']})"
    )
