"""Authorisations: a participant's account says which hot key speaks for which of its workers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pluralis_lab.contributions.attestation import authorisation_typed_data, recover_typed
from pluralis_lab.contributions.findings import Finding
from pluralis_lab.contributions.keys import checksum_address
from pluralis_lab.contributions.shape import RunShape
from pluralis_lab.errors import EvidenceError

_FIELDS = ("run", "worker", "participant", "address", "key", "signature")


@dataclass(frozen=True)
class Authorisation:
    """One line of evidence/authorisations.jsonl.

    worker : whose work `key` signs; participant, address : who says so, and by which account
    key : address of the worker's hot key; signature : EIP-712 `Authorisation`, by the account
    """

    run: str
    worker: str
    participant: str
    address: str
    key: str
    signature: str

    @classmethod
    def parse(cls, line: object) -> "Authorisation":
        """Read a line. Raises EvidenceError that names the field which is missing, unknown or no string."""
        if not isinstance(line, Mapping) or set(line) != set(_FIELDS):
            raise EvidenceError(f"authorisation {str(line)[:100]} is malformed; its fields are {', '.join(_FIELDS)}")
        for name in _FIELDS:
            if not isinstance(line[name], str):
                raise EvidenceError(f"authorisation.{name}={line[name]!r}; it is a string")
        return cls(**line)

    def to_dict(self) -> dict[str, str]:
        """Return the evidence line."""
        return {name: getattr(self, name) for name in _FIELDS}

    def typed_data(self, shape: RunShape) -> dict[str, Any]:
        """Return what the participant's account signs."""
        return authorisation_typed_data(self.run, self.worker, self.key, shape.chain_id, shape.ledger)

    def check(self, shape: RunShape) -> None:
        """Raise EvidenceError when this does not authorise a key of `shape`'s run: wrong run, owner, account or signature."""
        if self.run != shape.run_id:
            raise EvidenceError(f"it is for run {self.run[:16]}, not {shape.run_id[:16]}")
        seat = shape.seats.get(self.worker)
        if seat is None:
            raise EvidenceError(f"the run has no worker {self.worker!r}")
        if seat.participant != self.participant or shape.participants[seat.participant] != self.address:
            raise EvidenceError(
                f"{self.worker} belongs to {seat.participant} ({shape.participants[seat.participant]}), "
                f"not to {self.participant} ({self.address})"
            )
        if checksum_address(self.key) != self.key:
            raise EvidenceError(f"key={self.key} is not in the checksummed form of EIP-55")
        signer = recover_typed(self.typed_data(shape), self.signature)
        if signer != self.address:
            raise EvidenceError(f"it is signed by {signer}, not by {self.address}")


def authorised_keys(shape: RunShape, lines: Iterable[object]) -> tuple[dict[str, frozenset[str]], tuple[Finding, ...]]:
    """Return the key addresses of each worker, and what is wrong with the lines that gave none.

    A worker may have several keys: a lost one is replaced by authorising another.
    """
    keys: dict[str, set[str]] = {seat.name: set() for seat in shape.workers}
    findings = []
    for number, line in enumerate(lines, start=1):
        worker = line.get("worker") if isinstance(line, Mapping) else None
        try:
            authorisation = Authorisation.parse(line)
            authorisation.check(shape)
        except EvidenceError as error:
            subject = f"authorisation {number} (for {worker})"
            findings.append(Finding("unauthorised", None, subject, str(error)))
        else:
            keys[authorisation.worker].add(authorisation.key)
    return {worker: frozenset(addresses) for worker, addresses in keys.items()}, tuple(findings)
