"""The picture of a run: a pure, incremental fold of the store's events into what every view shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pluralis_lab.errors import StoreError
from pluralis_lab.views.fold_events import FOLDS
from pluralis_lab.views.own_texts import brought
from pluralis_lab.views.picture_parts import LIVE_STATES, RECENT_ROUNDS, Epoch, Mark, WorkerPicture, finite
from pluralis_lab.views.series import BoundedSeries, Series
from pluralis_lab.views.units import count_word

if TYPE_CHECKING:
    from pluralis_lab.store import Event, RunDirectory

MANY_WORKERS, LIMIT_OF_MANY = 64, 128
"""Above so many workers each one's curves keep fewer points, where the picture is bounded: they are drawn as large as a stamp."""


@dataclass
class RunPicture:
    """Everything that the views show of one run; feed it with `update`, in the order of `seq`, without gaps.

    Times are those of the events: unix seconds for the swarm engine, virtual seconds for the virtual one.
    Losses are nats a token. Rounds count from 0.
    """

    run: str
    name: str
    engine: str
    stages: int
    replicas: int
    steps: int
    epoch_rounds: int
    unigram_nats: float | None = None
    writes_text: bool = False
    takes_texts: bool = False
    """Workers may bring a text of their own (`RunSpec.own_data`)."""
    model_parameters: int | None = None
    stage_parameters: tuple[int, ...] = ()
    accounts: dict[str, str] = field(default_factory=dict)
    workers: dict[str, WorkerPicture] = field(default_factory=dict)
    participants: list[str] = field(default_factory=list)
    state: str = "starting"
    reason: str = ""
    seq: int = 0
    round: int | None = None
    first_time: float | None = None
    last_time: float | None = None
    running_since: float | None = None
    ended_at: float | None = None
    loss: Series = field(default_factory=Series)
    validation: Series = field(default_factory=Series)
    tokens_per_s: Series = field(default_factory=Series)
    seconds: Series = field(default_factory=Series)
    tokens: Series = field(default_factory=Series)
    total_tokens: float = 0
    epochs: dict[int, Epoch] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    wire: dict[str, Any] = field(default_factory=dict)
    checkpoints: int = 0
    reroutes: int = 0
    limit: int | None = None
    worker_limit: int | None = None

    @classmethod
    def of(cls, run_dir: RunDirectory, *, read: bool = True, limit: int | None = None) -> RunPicture:
        """Return the picture of a run directory, with all events so far folded in (none with `read=False`).

        limit : points that each curve keeps at most (`BoundedSeries`), for a reader that must not grow with the run
        """
        info, spec = run_dir.info, run_dir.spec
        picture = cls(
            run=str(run_dir.id),
            name=str(info.get("name") or run_dir.id[:8]),
            engine=str(info.get("engine", "swarm")),
            stages=spec.stages,
            replicas=spec.replicas,
            steps=spec.steps,
            epoch_rounds=spec.epoch_rounds,
            unigram_nats=finite((info.get("corpus") or {}).get("unigram_nats")),
            writes_text=spec.model.kind == "gpt" and (info.get("corpus") or {}).get("kind") == "tokens",
            takes_texts=spec.own_data > 0,
            model_parameters=info.get("model_parameters"),
            stage_parameters=tuple(info.get("stage_parameters") or ()),
            accounts={str(p.get("address", "")).lower(): p["name"] for p in info.get("participants") or ()},
            participants=[p["name"] for p in info.get("participants") or ()],
            limit=limit,
        )
        if limit is not None:
            many = len(info.get("workers") or ()) > MANY_WORKERS
            picture.worker_limit = min(limit, LIMIT_OF_MANY) if many else limit
            for name in ("loss", "validation", "tokens_per_s", "seconds", "tokens"):
                setattr(picture, name, BoundedSeries(limit))
        for entry in info.get("workers") or ():
            worker = picture.worker(entry["name"])
            worker.stage, worker.replica = entry["stage"], entry["replica"]
            worker.participant = entry.get("participant", "")
            worker.own_text = brought(entry.get("data"))
            if 0 <= worker.stage < len(picture.stage_parameters):
                worker.parameters = picture.stage_parameters[worker.stage]
        if read:
            with closing(run_dir.reader()) as reader:
                picture.update(reader.read())
        return picture

    def update(self, events: Iterable[Event]) -> RunPicture:
        """Fold `events` in; raises StoreError at the first gap or repetition, with everything before it folded."""
        for event in events:
            if event.seq != self.seq + 1:
                raise StoreError(
                    f"event seq={event.seq} follows seq={self.seq}: a view needs every event once; "
                    f"read again with events(since={self.seq}) and without a filter"
                )
            fold = FOLDS.get(event.kind)
            if fold is not None:
                fold(self, event)
            self.seq = event.seq
            self.last_time = event.time if self.last_time is None else max(self.last_time, event.time)
            if self.first_time is None:
                self.first_time = event.time
        return self

    # -- questions that more than one view asks ------------------------------------------------------------------
    @property
    def is_over(self) -> bool:
        """The run has ended, well or badly: nothing more will come unless someone resumes it."""
        return self.state in ("stopped", "failed")

    @property
    def rounds_done(self) -> int:
        return 0 if self.round is None else self.round + 1

    @property
    def is_complete(self) -> bool:
        """Every round of the spec has been trained."""
        return self.rounds_done >= self.steps

    @property
    def total_work_flops(self) -> float:
        return math.fsum(worker.total_work_flops for worker in self.workers.values())

    @property
    def num_live(self) -> int:
        return sum(worker.state in LIVE_STATES for worker in self.workers.values())

    def phases(self) -> dict[str, int]:
        """Return how many workers are in each state."""
        return dict(Counter(worker.state for worker in self.workers.values()))

    @property
    def bytes_per_s(self) -> float | None:
        """Bytes a second that the workers of a run that trains send over all links; None where that is not known."""
        rates = [worker.bytes_per_s for worker in self.workers.values() if worker.state == "active"]
        known = [rate for rate in rates if rate is not None]
        return math.fsum(known) if known and self.state == "running" else None

    def is_idle(self, worker: WorkerPicture) -> bool:
        """`worker` takes part in a run that trains, and had next to nothing to do in the last rounds."""
        return self.state == "running" and worker.state == "active" and worker.recent.has_little_to_do

    @property
    def num_idle(self) -> int:
        return sum(self.is_idle(worker) for worker in self.workers.values())

    @property
    def elapsed_s(self) -> float | None:
        """Seconds (of the run's own clock) between the first `running` and the last event or the end."""
        if self.running_since is None or self.last_time is None:
            return None
        return max(0.0, (self.ended_at or self.last_time) - self.running_since)

    @property
    def remaining_s(self) -> float | None:
        """Seconds that the rounds still to come will take at the speed of the last ones, or None if unknown."""
        pace = self.seconds.mean(RECENT_ROUNDS)
        return None if pace is None or self.state != "running" else pace * max(0, self.steps - self.rounds_done)

    @property
    def headline(self) -> str:
        """The state of the run in a few words."""
        if self.state == "failed":
            return f"failed: {self.reason}" if self.reason else "failed"
        if self.state == "starting" and self.round is None:
            count = len(self.workers) or self.stages * self.replicas
            return f"starting {count_word(count)} worker{'' if count == 1 else 's'}…"
        if self.state in ("starting", "paused") and self.reason:
            return f"{self.state}: {self.reason}"
        if self.state == "running" and self.round is None:
            return "waiting for the first round"
        if self.state == "serving":
            return "finished, serving" if self.is_complete else "serving"
        if self.state == "stopped":
            if self.is_complete:
                return "finished"
            return f"stopped after {self.rounds_done} of {self.steps} rounds" + (f": {self.reason}" if self.reason else "")
        return self.state

    def grouped(self) -> list[tuple[int, list[WorkerPicture]]]:
        """Return the workers by stage, each stage in the order of its replicas."""
        stages: dict[int, list[WorkerPicture]] = {}
        for worker in sorted(self.workers.values(), key=lambda w: (w.stage, w.replica, w.name)):
            stages.setdefault(worker.stage, []).append(worker)
        return list(stages.items())

    def work_shares(self) -> dict[str, float]:
        """Return each participant's share of the work seen so far, paid or not; they sum to 1, or all are 0."""
        total = self.total_work_flops
        shares = dict.fromkeys(self.participants, 0.0)
        for worker in self.workers.values():
            owner = worker.participant or worker.name
            shares[owner] = shares.get(owner, 0.0) + (worker.total_work_flops / total if total else 0.0)
        return shares

    def owned_wei(self) -> dict[str, int]:
        """Return the token wei that the closed epochs' signed tables give each participant."""
        owned = dict.fromkeys(self.participants, 0)
        for epoch in self.epochs.values():
            for address, amount in epoch.amounts_wei.items():
                owner = self.accounts.get(address.lower(), address)
                owned[owner] = owned.get(owner, 0) + amount
        return owned

    def ownership(self) -> dict[str, float]:
        """Return each participant's fraction of all tokens that closed epochs gave out; empty before the first."""
        owned = self.owned_wei()
        total = sum(owned.values())
        return {name: amount / total for name, amount in owned.items()} if total else {}

    def silent_s(self, now: float, heard_at: float | None = None) -> float | None:
        """Return the seconds since the last event, at unix time `now`.

        Events of the virtual engine carry a virtual clock: there the moment that the reader last got an event counts.
        """
        last = self.last_time if self.engine == "swarm" else heard_at
        return None if last is None else max(0.0, now - last)

    def worker(self, name: str) -> WorkerPicture:
        """Return the picture of a worker, made on first mention (workers may join while a run is on)."""
        if name not in self.workers:
            self.workers[name] = (
                WorkerPicture(name) if self.worker_limit is None else WorkerPicture.bounded(name, self.worker_limit)
            )
        return self.workers[name]

    def forget_old(self) -> None:
        """Drop marks and errors that no view shows any more, in a picture that must not grow with the run."""
        for kept in (self.marks, self.errors):
            if self.limit is not None and len(kept) > 2 * self.limit:
                del kept[: -self.limit]

    def to_json(self, *, num_points: int = 240, num_spark: int = 48) -> dict[str, Any]:
        """Return the payload of the views and of `application/vnd.pluralis.run+json` (payload.py has its form)."""
        from pluralis_lab.views.payload import picture_payload

        return picture_payload(self, num_points=num_points, num_spark=num_spark)
