"""A recorded run once more in this process, compared with what its workers reported."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pluralis_lab.markup import facts
from pluralis_lab.phases import HOLDING
from pluralis_lab.store import Event, RunDirectory

COMPARED = {
    "worker.round": ("tokens", "work_flops"),
    "reroute": ("index", "stage", "dead", "to"),
    "round": ("tokens",),
}
"""Kinds of events, and what of each is a count or a route: the same in every replay, on any machine."""

Life = tuple[str, int]
"""A worker and which of its processes: the incarnation."""


@dataclass(frozen=True)
class Told:
    """What a worker reported, so far as it is compared; of the loss of a round only that somebody did."""

    kind: str
    worker: str | None
    round: int | None
    facts: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.facts)
        return f"{self.worker or 'the run'} reported {self.kind} of round {self.round}: {facts}"


@dataclass(frozen=True)
class Replay:
    """What came of it.

    num_events : events of all workers
    num_rounds : rounds that both have
    differences : what the run reported and the replay did not, and the other way round, in words; none when they agree
    largest_loss_difference : over those rounds, in nats; 0 on the machine that trained
    instead_of : devices of the run that this machine lacks, for which the CPU computed here; losses then differ by rounding
    """

    num_events: int
    num_rounds: int
    differences: tuple[str, ...]
    largest_loss_difference: float
    instead_of: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the replay came to the end, with the same members, micro-batches, routes and counts."""
        return not self.differences

    def _rows(self) -> list[tuple[str, str]]:
        verdict = "as it was recorded" if self.ok else f"{len(self.differences)} differences; the first: {self.differences[0]}"
        loss = f"{self.largest_loss_difference:.2g} nats over {self.num_rounds} rounds"
        rows = [("replay", verdict), ("events", f"{self.num_events:,}"), ("losses differ by", loss)]
        return [*rows, ("computed on", f"the CPU in place of {', '.join(self.instead_of)}")] if self.instead_of else rows

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self._rows())
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return facts("Replay", self._rows())


def replay(run: RunDirectory) -> Replay:
    """Go through `run` once more; see `Run.replay`."""
    from rich.console import Console
    from rich.progress import Progress

    from pluralis_lab.engines.virtual.replay import ReplayedSwarm

    told: dict[Life, list[Told]] = defaultdict(list)
    losses: dict[int, dict[Life, float]] = defaultdict(dict)

    def on_report(worker: str, incarnation: int, kind: str, body: dict[str, Any]) -> None:
        name = {"work": "worker.round", "state": "worker.state"}.get(kind, kind)
        said = _told(name, worker, body.get("round"), {**body, "incarnation": incarnation})
        if said is not None:
            told[worker, incarnation].append(said)
        if kind == "round":
            losses[body["round"]][worker, incarnation] = body["loss"]

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"replaying {len(run.info['workers'])} workers")
        swarm = ReplayedSwarm(run, on_report=on_report, on_progress=lambda done: bar.update(task, completed=done))
        bar.update(task, total=swarm.num_events)
        with _one_thread():
            why = swarm.main()
    record = list(run.events(kinds=["run.state", "worker.state", *COMPARED]))
    differences = [*([why] if why else []), *compare(record, told)]
    recorded = {event.round: event.body["loss"] for event in record if event.kind == "round" and event.round is not None}
    both = recorded.keys() & losses.keys()
    begun = _starts(record)
    last = {number: losses[number][max(losses[number], key=lambda life: begun.get(life, 0))] for number in both}
    largest = max((abs(recorded[number] - last[number]) for number in both), default=0.0)
    return Replay(swarm.num_events, len(both), tuple(differences), largest, tuple(sorted(swarm.instead_of)))


def compare(record: Sequence[Event], replayed: Mapping[Life, Sequence[Told]]) -> list[str]:
    """Return in words what the record has and the replay has not, or less often, and the other way round.

    Of a process that ended before it had trained all, the last reports may not have reached the record: the supervisor hears
    nobody whom it has set aside or stopped. What the replay has of such a process beyond the last that was heard is no
    difference. Where all go back to a checkpoint, or the run is resumed, rounds are trained again: each start is compared alone.

    replayed : what each process reported, in order
    """
    recorded: Counter[tuple[int, Told]] = Counter()
    served: set[Life] = set()
    start = 0
    for event in record:
        if event.kind == "run.state":
            start += event.body["state"] == "starting"
        elif (said := _told(event.kind, event.worker, event.round, event.body)) is not None:
            recorded[start, said] += 1
            if event.kind == "worker.state" and event.body["state"] == "serving":
                served.add((str(event.worker), event.body["incarnation"]))
    begun = _starts(record)
    missing, more = recorded.copy(), Counter[Told]()
    for life, reports in replayed.items():
        at, last, beyond, rounds = begun.get(life, start), -1, [], set()
        for number, said in enumerate(reports):
            if said.kind == "round" and (at, said) in recorded and said not in rounds:
                rounds.add(said)  # each replica of the last stage says so, and the record has what the first said
                missing[at, said] = 0
            elif said.kind != "round" and missing[at, said] > 0:
                missing[at, said] -= 1
                last = number
            else:
                beyond.append((number, said))
        more.update(said for number, said in beyond if number < last or life in served)
    return [
        *(f"{said}{_times(count)}, and not in the replay" for (_, said), count in missing.items() if count),
        *(f"in the replay {said}{_times(count)}, and not in the record" for said, count in more.items()),
    ]


def _starts(record: Sequence[Event]) -> dict[Life, int]:
    """Return in which start of the run, from 1, each process began: the first, after going back to a checkpoint, or resumed."""
    begun: dict[Life, int] = {}
    start = 0
    for event in record:
        if event.kind == "run.state":
            start += event.body["state"] == "starting"
        elif event.kind == "worker.state" and event.body["state"] == "starting":
            begun[str(event.worker), event.body["incarnation"]] = start
    return begun


def _times(count: int) -> str:
    return "" if count == 1 else f", {count} times more"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as a worker does: with more, sums are added up in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _told(kind: str, worker: str | None, round_: int | None, body: dict[str, Any]) -> Told | None:
    """Return what is compared of an event whose source is a worker and not its supervisor, None for another one."""
    if kind == "worker.state":
        names: tuple[str, ...] = ("state", "incarnation")
        if body["state"] not in {"joining", "syncing"} | HOLDING:
            return None
    elif kind in COMPARED:
        names = COMPARED[kind]
    else:
        return None
    return Told(kind, None if kind == "round" else worker, round_, tuple((name, body.get(name)) for name in names))
