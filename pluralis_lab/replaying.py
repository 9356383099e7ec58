"""A recorded run once more in this process, compared with what its workers reported."""

from collections.abc import Iterator
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


@dataclass(frozen=True)
class Replay:
    """What came of it.

    num_events : events of all workers
    num_rounds : rounds that both have
    differences : what the run reported and the replay did not, in words; none when they agree
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

    found: set[tuple[Any, ...]] = set()
    losses: dict[int, float] = {}

    def on_report(worker: str, incarnation: int, kind: str, body: dict[str, Any]) -> None:
        name = {"work": "worker.round", "state": "worker.state"}.get(kind, kind)
        found.add(_facts(name, None if name == "round" else worker, body.get("round"), body))
        if kind == "round":
            losses[body["round"]] = body["loss"]

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"replaying {len(run.info['workers'])} workers")
        swarm = ReplayedSwarm(run, on_report=on_report, on_progress=lambda done: bar.update(task, completed=done))
        bar.update(task, total=swarm.num_events)
        with _one_thread():
            why = swarm.main()
    differences = [why] if why else []
    recorded: dict[int, float] = {}
    for event in _compared(run):
        if _facts(event.kind, event.worker, event.round, event.body) not in found:
            differences.append(f"{event.worker or 'the run'} reported {event.kind} of round {event.round}: {_told(event)}")
        if event.kind == "round" and event.round is not None:
            recorded[event.round] = event.body["loss"]
    both = recorded.keys() & losses.keys()
    largest = max((abs(recorded[number] - losses[number]) for number in both), default=0.0)
    return Replay(swarm.num_events, len(both), tuple(differences), largest, tuple(sorted(swarm.instead_of)))


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


def _compared(run: RunDirectory) -> Iterator[Event]:
    """Yield the events that a worker, not its supervisor, is the source of."""
    for event in run.events(kinds=[*COMPARED, "worker.state"]):
        if event.kind != "worker.state" or event.body["state"] in {"joining", "syncing"} | HOLDING:
            yield event


def _facts(kind: str, worker: str | None, round_: int | None, body: dict[str, Any]) -> tuple[Any, ...]:
    if kind == "worker.state":
        return kind, worker, round_, body["state"]
    return kind, worker, round_, *(body.get(name) for name in COMPARED.get(kind, ()))


def _told(event: Event) -> str:
    names = COMPARED.get(event.kind, ("state",))
    return ", ".join(f"{name}={event.body.get(name)}" for name in names)
