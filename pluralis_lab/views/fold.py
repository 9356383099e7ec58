"""The picture of a run: a pure, incremental fold of the store's events into what every view shows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pluralis_lab.errors import StoreError
from pluralis_lab.views.series import Series
from pluralis_lab.views.units import count_word, format_duration

if TYPE_CHECKING:
    from pluralis_lab.store import Event, RunDirectory

LIVE_STATES = frozenset({"active", "serving"})
COMING_STATES = frozenset({"starting", "joining", "syncing", "warming"})
RECENT_ROUNDS = 20


@dataclass(frozen=True)
class Mark:
    """Something that happened once and belongs on the time axis: a death, a return, a re-routed micro-batch."""

    kind: str
    round: int
    worker: str
    text: str


@dataclass(frozen=True)
class Epoch:
    """One closed epoch: how its emission was split, and who signed for it."""

    epoch: int
    round: int
    shares: dict[str, float]
    amounts_wei: dict[str, int]
    statements: int
    unpaid: int
    attested_by: tuple[str, ...]


@dataclass
class WorkerPicture:
    """One worker as far as the events tell: where it sits, how it is, and what it has done."""

    name: str
    stage: int = -1
    replica: int = -1
    participant: str = ""
    state: str = "starting"
    reason: str = ""
    device: str = ""
    pid: int | None = None
    incarnation: int = 0
    parameters: int | None = None
    deaths: int = 0
    tokens: Series = field(default_factory=Series)
    work_flops: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    agreement: Series = field(default_factory=Series)
    total_tokens: float = 0
    total_work_flops: float = 0.0
    compute_s: float = 0.0
    bytes_out: float = 0
    bytes_in: float = 0
    bytes_per_s: float | None = None
    links: dict[str, dict[str, float]] = field(default_factory=dict)
    round: int | None = None
    _heard: float | None = None

    @property
    def is_dead(self) -> bool:
        return self.state == "dead"


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
    epochs: dict[int, Epoch] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    wire: dict[str, Any] = field(default_factory=dict)
    checkpoints: int = 0
    reroutes: int = 0

    @classmethod
    def of(cls, run_dir: RunDirectory, *, read: bool = True) -> RunPicture:
        """Return the picture of a run directory, with all events so far folded in (none with `read=False`)."""
        info, spec = run_dir.info, run_dir.spec
        picture = cls(
            run=str(run_dir.id),
            name=str(info.get("name") or run_dir.id[:8]),
            engine=str(info.get("engine", "swarm")),
            stages=spec.stages,
            replicas=spec.replicas,
            steps=spec.steps,
            epoch_rounds=spec.epoch_rounds,
            unigram_nats=_finite((info.get("corpus") or {}).get("unigram_nats")),
            model_parameters=info.get("model_parameters"),
            stage_parameters=tuple(info.get("stage_parameters") or ()),
            accounts={str(p.get("address", "")).lower(): p["name"] for p in info.get("participants") or ()},
            participants=[p["name"] for p in info.get("participants") or ()],
        )
        for entry in info.get("workers") or ():
            worker = WorkerPicture(entry["name"], entry["stage"], entry["replica"], entry.get("participant", ""))
            if 0 <= worker.stage < len(picture.stage_parameters):
                worker.parameters = picture.stage_parameters[worker.stage]
            picture.workers[worker.name] = worker
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
            fold = _FOLDS.get(event.kind)
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
            self.workers[name] = WorkerPicture(name)
        return self.workers[name]

    def to_json(self, *, num_points: int = 240, num_spark: int = 48) -> dict[str, Any]:
        """Return the payload of the views and of `application/vnd.pluralis.run+json` (payload.py has its form)."""
        from pluralis_lab.views.payload import picture_payload

        return picture_payload(self, num_points=num_points, num_spark=num_spark)


def _finite(value: Any) -> float | None:
    """Return `value` as a float, or None when it is missing, infinite or not a number."""
    if value is None or isinstance(value, bool):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _run_state(picture: RunPicture, event: Event) -> None:
    picture.state = str(event.body.get("state", picture.state))
    picture.reason = str(event.body.get("reason") or "")
    picture.ended_at = event.time if picture.is_over else None
    if picture.state == "running" and picture.running_since is None:
        picture.running_since = event.time


def _worker_state(picture: RunPicture, event: Event) -> None:
    worker, body = picture.worker(event.worker or ""), event.body
    before, worker.state = worker.state, str(body.get("state", worker.state))
    worker.reason = str(body.get("reason") or "")
    for key in ("stage", "replica", "pid", "incarnation", "parameters"):
        if body.get(key) is not None:
            setattr(worker, key, int(body[key]))
    for key in ("participant", "device"):
        if body.get(key):
            setattr(worker, key, str(body[key]))
    if worker.participant and worker.participant not in picture.participants:
        picture.participants.append(worker.participant)
    at = event.round if event.round is not None else picture.round or 0
    if worker.is_dead and before != "dead":
        worker.deaths += 1
        picture.marks.append(Mark("death", at, worker.name, f"{worker.name} died in round {at}"))
    elif worker.state == "active" and worker.deaths and before not in LIVE_STATES:
        picture.marks.append(Mark("return", at, worker.name, f"{worker.name} is back in round {at}"))
    if worker.state not in LIVE_STATES:
        worker._heard = worker.bytes_per_s = None
    elif worker._heard is None:
        worker._heard = event.time


def _round(picture: RunPicture, event: Event) -> None:
    if event.round is None:
        return
    picture.round = event.round
    loss = _finite(event.body.get("loss"))
    if loss is None:
        picture.marks.append(Mark("diverged", event.round, "", f"the loss of round {event.round} is not finite"))
    else:
        picture.loss.put(event.round, loss)
    for key, series in (("tokens_per_s", picture.tokens_per_s), ("seconds", picture.seconds), ("tokens", picture.tokens)):
        value = _finite(event.body.get(key))
        if value is not None:
            series.put(event.round, value)


def _validation(picture: RunPicture, event: Event) -> None:
    loss = _finite(event.body.get("loss"))
    if event.round is not None and loss is not None:
        picture.validation.put(event.round, loss)


def _worker_round(picture: RunPicture, event: Event) -> None:
    if event.round is None:
        return
    worker, body = picture.worker(event.worker or ""), event.body
    worker.round = event.round
    tokens, work = _finite(body.get("tokens")) or 0.0, _finite(body.get("work_flops")) or 0.0
    worker.total_tokens += tokens - (worker.tokens.put(event.round, tokens) or 0.0)
    worker.total_work_flops += work - (worker.work_flops.put(event.round, work) or 0.0)
    for key, series in (("grad_norm", worker.grad_norm), ("agreement", worker.agreement)):
        value = _finite(body.get(key))
        if value is not None:
            series.put(event.round, value)
    sent = _finite(body.get("bytes_out")) or 0.0
    worker.bytes_out += sent
    worker.bytes_in += _finite(body.get("bytes_in")) or 0.0
    worker.compute_s += _finite(body.get("compute_s")) or 0.0
    if worker._heard is not None and event.time > worker._heard:
        worker.bytes_per_s = sent / (event.time - worker._heard)
    worker._heard = event.time
    for peer, link in (body.get("links") or {}).items():
        total = worker.links.setdefault(peer, {})
        for key, value in link.items():
            total[key] = total.get(key, 0.0) + (_finite(value) or 0.0)


def _reroute(picture: RunPicture, event: Event) -> None:
    picture.reroutes += 1
    body, at = event.body, event.round if event.round is not None else picture.round or 0
    text = f"{event.worker} sent micro-batch {body.get('index')} to {body.get('to')} instead of {body.get('dead')}"
    picture.marks.append(Mark("reroute", at, str(event.worker or ""), text))


def _epoch(picture: RunPicture, event: Event) -> None:
    body = event.body
    number = int(body.get("epoch", len(picture.epochs)))
    picture.epochs[number] = Epoch(
        epoch=number,
        round=event.round if event.round is not None else (number + 1) * picture.epoch_rounds - 1,
        shares={str(name): int(num) / int(den) for name, (num, den) in (body.get("shares") or {}).items()},
        amounts_wei={str(address): int(amount) for address, amount in (body.get("amounts") or {}).items()},
        statements=int(body.get("statements") or 0),
        unpaid=int(body.get("unpaid") or 0),
        attested_by=tuple(str(name) for name in body.get("attested_by") or ()),
    )


def _checkpoint(picture: RunPicture, event: Event) -> None:
    picture.checkpoints += 1


def _wire(picture: RunPicture, event: Event) -> None:
    picture.wire = {key: value for key, value in event.body.items() if isinstance(value, str) or _finite(value) is not None}


def _error(picture: RunPicture, event: Event) -> None:
    picture.errors.append(
        {
            "worker": event.worker or "",
            "message": str(event.body.get("message", "")),
            "after": format_duration(event.time - picture.first_time) if picture.first_time is not None else "",
        }
    )


_FOLDS = {
    "run.state": _run_state,
    "worker.state": _worker_state,
    "round": _round,
    "validation": _validation,
    "worker.round": _worker_round,
    "reroute": _reroute,
    "epoch": _epoch,
    "checkpoint": _checkpoint,
    "wire": _wire,
    "error": _error,
}
