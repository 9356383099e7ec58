"""The audit: an observer recomputes every signature, tally, share and root of a run from its public evidence."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from pluralis_lab.contributions.admission import Admission
from pluralis_lab.contributions.attestation import recover_typed
from pluralis_lab.contributions.closing import Close, build_close, hash_of_hashes
from pluralis_lab.contributions.findings import Finding, FindingKind, missing_finding, statement_finding, statement_name
from pluralis_lab.contributions.receipts import Statement
from pluralis_lab.contributions.report import AuditReport
from pluralis_lab.contributions.shape import RunShape
from pluralis_lab.contributions.tally import EpochTable, tally
from pluralis_lab.errors import EvidenceError


def audit(
    shape: RunShape,
    closes: Sequence[object],
    statements_by_epoch: Mapping[int, Sequence[object]],
    authorisations: Iterable[object],
    quorum: int | None = None,
) -> AuditReport:
    """Return what is right and wrong with a run's evidence; garbage in it becomes a finding, never an exception.

    closes : lines of evidence/closes.jsonl; statements_by_epoch : lines of each evidence/epoch-<e>.jsonl
    authorisations : lines of evidence/authorisations.jsonl
    quorum : attestations that an epoch needs; None: floor(2n/3) + 1 of the run's attesters

    What an observer cannot recompute is the training itself: aggregates and state digests belong to those who hold the
    stage (algorithms.md, "Screening and audit"). Statements that were never closed over leave no trace to miss.
    """
    auditor = _Auditor(shape, Admission(shape, authorisations), shape.quorum if quorum is None else quorum)
    return auditor.run(closes, statements_by_epoch)


class _Auditor:
    """One pass over the evidence, epoch by epoch; collects findings in the order in which it meets them."""

    def __init__(self, shape: RunShape, admission: Admission, quorum: int) -> None:
        self.shape = shape
        self.admission = admission
        self.quorum = quorum
        self.findings: list[Finding] = list(admission.findings)
        self.notes: list[Finding] = []
        self.tables: list[EpochTable] = []
        self.closes: dict[int, Close] = {}
        self.num_attestations = 0
        self._first_epoch: dict[str, int] = {}

    def run(self, closes: Sequence[object], statements_by_epoch: Mapping[int, Sequence[object]]) -> AuditReport:
        self._read_closes(closes)
        for epoch in sorted({*self.closes, *statements_by_epoch}):
            self._audit_epoch(epoch, statements_by_epoch.get(epoch, ()))
        return AuditReport(
            run_id=self.shape.run_id,
            findings=tuple(self.findings),
            notes=tuple(self.notes),
            tables=tuple(self.tables),
            closes=tuple(self.closes.values()),
            num_attestations=self.num_attestations,
        )

    def _read_closes(self, lines: Sequence[object]) -> None:
        for number, line in enumerate(lines, start=1):
            epoch = line.get("epoch") if isinstance(line, Mapping) else None
            epoch = epoch if type(epoch) is int else None
            try:
                close = Close.parse(line)
            except EvidenceError as error:
                self._fault("malformed", epoch, f"close {number}", str(error))
                continue
            if close.run != self.shape.run_id:
                self._fault("foreign-run", epoch, f"close of epoch {epoch}", f"it is of run {close.run}")
            elif close.epoch in self.closes:
                self._fault("duplicate", epoch, f"close of epoch {epoch}", "the epoch is closed twice")
            else:
                self.closes[close.epoch] = close
        self.closes = dict(sorted(self.closes.items()))
        for before, after in itertools.pairwise([-1, *self.closes]):
            if after > before + 1:
                which = f"close of epoch {before + 1}" + (f" to {after - 1}" if after > before + 2 else "")
                self._fault("missing", before + 1, which, f"epoch {after} is closed, this is not")

    def _audit_epoch(self, epoch: int, lines: Sequence[object]) -> None:
        close = self.closes.get(epoch)
        admitted, refused = self.admission.screen(epoch, lines)
        self.findings += refused
        self._find_replays(epoch, lines)
        if close is None:
            if lines and epoch > max(self.closes, default=-1):
                self.notes.append(Finding("open", epoch, f"epoch {epoch}", f"{len(lines)} statements, not closed"))
            return
        held = {statement.hash: statement for statement in admitted}
        present = {statement_name(line)["hash"] for line in lines}
        for hash, listing in zip(close.statements, close.listing, strict=True):
            if hash not in present:
                self.findings.append(missing_finding(epoch, hash, listing))
        counted = [held[hash] for hash in close.statements if hash in held]
        listed = set(close.statements)
        for statement in admitted:
            if statement.hash not in listed:
                detail = "valid, but the epoch was closed without it: not counted"
                self.notes.append(statement_finding("late", epoch, statement.to_dict(), detail))
        table = tally(self.shape, epoch, counted, refused)
        self.tables.append(table)
        self.notes += table.notes
        self._check_table(close, counted, table)
        self._check_attestations(close)

    def _find_replays(self, epoch: int, lines: Sequence[object]) -> None:
        for line in lines:
            hash = statement_name(line)["hash"]
            if hash is None:
                continue
            first = self._first_epoch.setdefault(hash, epoch)
            if first != epoch:
                detail = f"it stands in the evidence of epoch {first} already"
                self.findings.append(statement_finding("replayed", epoch, line, detail))

    def _check_table(self, close: Close, counted: Sequence[Statement], table: EpochTable) -> None:
        epoch, subject = close.epoch, f"close of epoch {close.epoch}"
        names = dict(zip(close.statements, close.listing, strict=True))
        for statement in counted:
            if names[statement.hash] != (statement.kind, statement.round, statement.worker, statement.signer):
                self._fault("malformed", epoch, subject, f"it lists {statement} as {names[statement.hash]}")
        if hash_of_hashes(close.statements) != close.data_hash:
            self._fault("wrong-root", epoch, subject, f"data_hash {close.data_hash} is not that of its statements")
        if len(close.state_digests) != self.shape.stages or hash_of_hashes(close.state_digests) != close.model_hash:
            self._fault("wrong-root", epoch, subject, f"model_hash {close.model_hash} is not that of its state digests")
        digests = [*close.state_digests, *["00" * 32] * self.shape.stages][: self.shape.stages]
        expected = build_close(self.shape, counted, table, digests, close.attempt, data_hash=close.data_hash)
        if expected.shares != close.shares:
            self._fault("wrong-shares", epoch, subject, f"shares {_show(close.shares)}, recomputed {_show(expected.shares)}")
        if expected.amounts != close.amounts:
            got, want = ([f"{wei} to {account}" for _, account, wei in c.amounts] for c in (close, expected))
            self._fault("wrong-shares", epoch, subject, f"it pays {got}, recomputed {want}")
        if expected.root != close.root:
            self._fault("wrong-root", epoch, subject, f"root {close.root}, recomputed {expected.root}")

    def _check_attestations(self, close: Close) -> None:
        typed_data = close.typed_data(self.shape)
        valid = set()
        for attestation in close.attestations:
            name = str(attestation.get("attester"))
            try:
                address = recover_typed(typed_data, attestation.get("signature", ""))
            except EvidenceError as error:
                self._fault("bad-attestation", close.epoch, f"attestation of {name}", str(error))
                continue
            expected = self.shape.attesters.get(name)
            if expected is None:
                self._fault("bad-attestation", close.epoch, f"attestation of {name}", "is by no attester of the run")
            elif address != expected or attestation.get("address") != expected:
                detail = f"it is signed by {address} for {attestation.get('address')}; the attester's account is {expected}"
                self._fault("bad-attestation", close.epoch, f"attestation of {name}", detail)
            else:
                valid.add(expected)
        self.num_attestations += len(valid)
        if len(valid) < self.quorum:
            detail = f"{len(valid)} valid attestations; it takes {self.quorum} of {len(self.shape.attesters)} attesters"
            self._fault("no-quorum", close.epoch, f"close of epoch {close.epoch}", detail)

    def _fault(self, kind: FindingKind, epoch: int | None, subject: str, detail: str) -> None:
        self.findings.append(Finding(kind, epoch, subject, detail))


def _show(shares: Mapping[str, Fraction]) -> str:
    return ", ".join(f"{name} {share}" for name, share in shares.items()) or "none"
