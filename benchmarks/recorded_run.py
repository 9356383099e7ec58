"""A long run of many workers, written through the store as a supervisor writes it, with the totals that a view must show."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pluralis_lab.store import EventWriter, RunDirectory
from tests.views.made_up_run import Row, make_run

REPLICAS, EPOCH_ROUNDS, TOKENS, BATCH = 10, 25, 2048, 20_000


@dataclass
class Totals:
    """What was written, added up while it was written."""

    events: int = 0
    rounds: int = 0
    tokens: int = 0
    epochs: int = 0
    loss: float = 0.0
    work: dict[str, float] = field(default_factory=dict)
    bytes_out: dict[str, int] = field(default_factory=dict)


class RecordedRun:
    """`workers` workers in stages of ten replicas; `events` events at once, more with `add_quarter`."""

    def __init__(self, home: Path, *, workers: int, events: int) -> None:
        self.totals = Totals()
        self._luck = random.Random(11)
        self._workers = workers
        self._rounds = -(-events // (workers + 1))
        # Far more rounds than are written: the run is in the middle.
        self.directory: RunDirectory = make_run(
            home, rounds=4 * self._rounds, stages=workers // REPLICAS, replicas=REPLICAS, run_id="10ad" * 16
        )
        self.directory.update_info(state="running", name="load")
        self._seats: list[dict[str, Any]] = self.directory.info["workers"]
        self._people: list[dict[str, Any]] = self.directory.info["participants"]
        self._round = 0
        # The last event is of now: a round takes a second.
        self._now = time.time() - self._rounds
        self._writer: EventWriter = self.directory.writer()
        rows = self._record()
        while self.totals.events < events:
            batch = [row for _, row in zip(range(min(BATCH, events - self.totals.events)), rows, strict=False)]
            self._write(batch)

    def add_quarter(self, quarter: int) -> int:
        """Append the next events of a quarter of the workers (0 to 3), as four times a second bring them; returns `seq`."""
        if quarter == 0:
            self._round += 1
        size = -(-self._workers // 4)
        rows = [self._worker_round(seat, time.time()) for seat in self._seats[quarter * size : (quarter + 1) * size]]
        if quarter == 3:
            rows.append(self._round_end(time.time()))
        return self._write(rows)

    def close(self) -> None:
        self._writer.close()

    def _write(self, rows: list[Row]) -> int:
        """Append `rows` and count them."""
        seq = self._writer.append_all(rows)
        totals = self.totals
        totals.events = seq
        for kind, worker, _, body, _ in rows:
            if kind == "worker.round":
                totals.work[str(worker)] = totals.work.get(str(worker), 0.0) + body["work_flops"]
                totals.bytes_out[str(worker)] = totals.bytes_out.get(str(worker), 0) + body["bytes_out"]
            elif kind == "round":
                totals.rounds += 1
                totals.tokens += body["tokens"]
                totals.loss = body["loss"]
            elif kind == "epoch":
                totals.epochs += 1
        return seq

    def _record(self) -> Iterator[Row]:
        yield "run.state", None, None, {"state": "running", "reason": ""}, self._now
        for number, seat in enumerate(self._seats):
            place = {key: seat[key] for key in ("stage", "replica", "participant")}
            body = {"state": "active", "device": "cpu", "pid": 9_000_000 + number, **place}
            yield "worker.state", seat["name"], None, body, self._now
        while True:
            self._now += 1
            for seat in self._seats:
                yield self._worker_round(seat, self._now)
            yield self._round_end(self._now)
            if self._round % EPOCH_ROUNDS == EPOCH_ROUNDS - 1:
                yield self._epoch_end(self._now)
            self._round += 1

    def _epoch_end(self, at: float) -> Row:
        body = {
            "epoch": self._round // EPOCH_ROUNDS,
            "root": "ab" * 32,
            "statements": 9,
            "unpaid": 0,
            "amounts": {person["address"]: "1000" for person in self._people},
            "shares": {person["name"]: [1, len(self._people)] for person in self._people},
            "attested_by": [person["name"] for person in self._people],
        }
        return "epoch", None, self._round, body, at

    def _worker_round(self, seat: dict[str, Any], at: float) -> Row:
        ahead = (seat["stage"] + 1) * REPLICAS + seat["replica"]
        links = {}
        if ahead < self._workers:
            links[self._seats[ahead]["name"]] = {"forward_bytes": 34.6 * TOKENS, "forward_tokens": TOKENS}
        body = {
            "tokens": TOKENS,
            "work_flops": 6.1e9,
            "grad_norm": self._luck.random(),
            "agreement": self._luck.random(),
            "compute_s": 0.3,
            "bytes_out": 70_000 + self._luck.randrange(4000),
            "bytes_in": 70_000,
            "links": links,
        }
        return "worker.round", seat["name"], self._round, body, at

    def _round_end(self, at: float) -> Row:
        loss = 2.0 + 3.0 / (1 + self._round / 100) + 0.05 * self._luck.random()
        tokens = TOKENS * REPLICAS
        return "round", None, self._round, {"loss": loss, "tokens": tokens, "seconds": 1.0, "tokens_per_s": float(tokens)}, at
