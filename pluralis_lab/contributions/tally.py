"""The tally of an epoch: every micro-batch's work counted once, out of the statements that neighbours signed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from pluralis_lab.contributions.admission import Admission
from pluralis_lab.contributions.findings import Finding
from pluralis_lab.contributions.receipts import KINDS, Kind, Statement
from pluralis_lab.contributions.shape import RunShape

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class WorkerRow:
    """One worker's work in an epoch.

    *_tokens : tokens whose work of that kind counts; units : what the policy makes of them
    paid_units : counted, counter-signed, on a whole route
    self_attested_units : the part of paid_units that only workers of the same participant counter-signed
    unattested_units : done, since its micro-batch's route is whole, but no other replica signed for it: not paid
    incomplete_units : signed, but on a micro-batch whose route is not whole: not paid
    """

    worker: str
    stage: int
    replica: int
    participant: str
    forward_tokens: int
    backward_tokens: int
    contribution_tokens: int
    paid_units: int
    self_attested_units: int
    unattested_units: int
    incomplete_units: int


@dataclass(frozen=True)
class EpochTable:
    """An epoch's work, as anyone computes it from the same statements, in whatever order they come.

    rows : one a worker, in the order of the run's seats; units : paid units by participant, zeros included
    incomplete : (round, index) of micro-batches, in rounds with any statement, whose route is not signed throughout
    statements : hashes of what was counted, sorted
    findings : statements that do not count, and why; notes : work that two workers claim, counted once
    """

    epoch: int
    rows: tuple[WorkerRow, ...]
    units: Mapping[str, int]
    incomplete: tuple[tuple[int, int], ...]
    statements: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()

    @property
    def unattested_units(self) -> int:
        """Units of all workers that are shown and not paid for want of another replica's signature."""
        return sum(row.unattested_units for row in self.rows)

    def frame(self) -> "pd.DataFrame":
        """Return the rows as a table, with the epoch in front; units are Python integers, which have no upper limit."""
        import pandas as pd

        names = [field.name for field in fields(WorkerRow)]
        data = {name: [getattr(row, name) for row in self.rows] for name in names}
        columns = {name: pd.Series(values, dtype=object if name.endswith("_units") else None) for name, values in data.items()}
        return pd.DataFrame({"epoch": [self.epoch] * len(self.rows), **columns})


class _Piece(NamedTuple):
    """One kind of work on one micro-batch at one stage."""

    kind: Kind
    round: int
    stage: int
    micro_batch: int  # not `index`, which is a method of tuples


class _Claim(NamedTuple):
    """That `worker` did a piece of work: the lowest hash that says so, and whether another participant says so too."""

    hash: str
    worker: str
    foreign: bool


def tally_epoch(shape: RunShape, epoch: int, statements: Iterable[object], authorisations: Iterable[object]) -> EpochTable:
    """Return the table of `epoch` from evidence lines (`{"body", "signature"}`) and authorisation lines.

    What does not count is in `findings`; nothing is raised for it. See `tally` for what counts how.
    """
    admission = Admission(shape, authorisations)
    admitted, refused = admission.screen(epoch, statements)
    return tally(shape, epoch, admitted, (*admission.findings, *refused))


def tally(shape: RunShape, epoch: int, admitted: Iterable[Statement], findings: Iterable[Finding] = ()) -> EpochTable:
    """Return the table of `epoch` from statements that were already admitted.

    Every (kind, round, stage, index) counts once. Where two workers claim it, the one with the lowest statement hash is
    counted and the other is noted: an honest re-route looks like that, and so does a pair of colluders. The hash decides so
    that everyone computes the same, and judges nothing: who signs can try for a low one. The same worker's work
    counter-signed by several is no note. A micro-batch counts only if its route is whole: a forward receipt of every stage
    but the tail and a backward receipt of every stage but the head (algorithms.md, "Rounds").
    """
    admitted = list(admitted)
    pieces, notes = _claims(shape, epoch, admitted)
    rounds = sorted({statement.round for statement in admitted})
    incomplete = {
        (round, index)
        for round in rounds
        for index in range(shape.num_micro_batches)
        if not _is_whole(shape, pieces, round, index)
    }
    sums: dict[str, dict[str, int]] = {seat.name: defaultdict(int) for seat in shape.workers}
    tokens = shape.tokens_per_micro_batch
    for piece, claim in pieces.items():
        units = shape.units(piece.kind, piece.stage, shape.stages, tokens, shape.stage_flops[piece.stage])
        row = sums[claim.worker]
        if (piece.round, piece.micro_batch) in incomplete:
            row["incomplete_units"] += units
            continue
        row["paid_units"] += units
        row[f"{piece.kind}_tokens"] += tokens
        if not claim.foreign:
            row["self_attested_units"] += units
    for piece, worker in _unattested(shape, admitted, pieces, rounds, incomplete):
        units = shape.units(piece.kind, piece.stage, shape.stages, tokens, shape.stage_flops[piece.stage])
        sums[worker]["unattested_units"] += units
    rows = tuple(_row(shape, name, row) for name, row in sums.items())
    units_of = {name: sum(row.paid_units for row in rows if row.participant == name) for name in shape.participants}
    hashes = tuple(sorted(statement.hash for statement in admitted))
    return EpochTable(epoch, rows, units_of, tuple(sorted(incomplete)), hashes, tuple(findings), notes)


def _claims(shape: RunShape, epoch: int, admitted: Iterable[Statement]) -> tuple[dict[_Piece, _Claim], tuple[Finding, ...]]:
    """Return who is counted for each piece of work that another worker signed for, and notes on who else claims it."""
    claims: dict[_Piece, dict[str, _Claim]] = defaultdict(dict)
    for statement in admitted:
        if statement.signer == statement.worker:
            continue
        foreign = shape.seats[statement.signer].participant != shape.seats[statement.worker].participant
        for index in {index for item in statement.items for index in item.indices}:
            by_worker = claims[_Piece(statement.kind, statement.round, statement.stage, index)]
            known = by_worker.get(statement.worker)
            by_worker[statement.worker] = _Claim(
                min(statement.hash, known.hash) if known else statement.hash,
                statement.worker,
                foreign or (known is not None and known.foreign),
            )
    contested: dict[tuple[Kind, int, int, str, str], list[int]] = defaultdict(list)
    counted = {}
    for piece, by_worker in claims.items():
        winner, *others = sorted(by_worker.values())
        counted[piece] = winner
        for other in others:
            contested[piece.kind, piece.round, piece.stage, winner.worker, other.worker].append(piece.micro_batch)
    notes = tuple(
        Finding(
            "duplicate",
            epoch,
            f"{kind} work of stage {stage} in round {round}, indices {sorted(indices)}",
            f"claimed by {winner} and by {other}, counted for {winner}",
        )
        for (kind, round, stage, winner, other), indices in sorted(contested.items())
    )
    return counted, notes


def _is_whole(shape: RunShape, pieces: Mapping[_Piece, _Claim], round: int, index: int) -> bool:
    return all(
        _Piece("forward", round, stage, index) in pieces and _Piece("backward", round, stage + 1, index) in pieces
        for stage in range(shape.stages - 1)
    )


def _unattested(
    shape: RunShape,
    admitted: Iterable[Statement],
    pieces: Mapping[_Piece, _Claim],
    rounds: Iterable[int],
    incomplete: set[tuple[int, int]],
) -> Iterable[tuple[_Piece, str]]:
    """Yield each contribution that a whole route implies and no other replica signed for, with whose it seems to be.

    Whose: the worker that signed for itself, else the one whose part of the route at that stage was counted.
    """
    own: dict[_Piece, tuple[str, str]] = {}
    for statement in admitted:
        if statement.signer == statement.worker:
            for index in {index for item in statement.items for index in item.indices}:
                piece = _Piece("contribution", statement.round, statement.stage, index)
                own[piece] = min(own.get(piece, (statement.hash, statement.worker)), (statement.hash, statement.worker))
    for round in rounds:
        for index in range(shape.num_micro_batches):
            if (round, index) in incomplete:
                continue
            for stage in range(shape.stages):
                piece = _Piece("contribution", round, stage, index)
                if piece in pieces:
                    continue
                routed = pieces.get(_Piece("backward" if stage else "forward", round, stage, index))
                if piece in own:
                    yield piece, own[piece][1]
                elif routed is not None:
                    yield piece, routed.worker


def _row(shape: RunShape, name: str, sums: Mapping[str, int]) -> WorkerRow:
    seat = shape.seats[name]
    counts = {f"{kind}_tokens": sums.get(f"{kind}_tokens", 0) for kind in KINDS}
    return WorkerRow(
        worker=name,
        stage=seat.stage,
        replica=seat.replica,
        participant=seat.participant,
        forward_tokens=counts["forward_tokens"],
        backward_tokens=counts["backward_tokens"],
        contribution_tokens=counts["contribution_tokens"],
        paid_units=sums.get("paid_units", 0),
        self_attested_units=sums.get("self_attested_units", 0),
        unattested_units=sums.get("unattested_units", 0),
        incomplete_units=sums.get("incomplete_units", 0),
    )
