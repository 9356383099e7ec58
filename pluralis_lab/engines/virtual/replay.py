"""A run that was recorded, once more: the same workers, given the same events in the same order, without network or clock.

Each worker is deterministic, so what it said and did follows from its events; a message can be taken by its receiver as soon as
the sender has come to say it here too. What cannot be gone through to the end shows where code and record disagree.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines.own_corpus import open_own
from pluralis_lab.engines.scenario import Line, identity, other_event, read_scenario, started_peers
from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.store import RunDirectory
from pluralis_lab.worker import Compute, Computed, Effect, Event, Peer, Received, Refused, Report, Send, Started, Store, Worker
from pluralis_lab.worker.messages import Message

_Stream = tuple[str, int, str, int]
"""(sender, its incarnation, receiver, its incarnation)."""


@dataclass
class _Life:
    """One incarnation of a worker, and how far it has come."""

    name: str
    incarnation: int
    lines: deque[Line]
    machine: Worker
    compute: StageCompute
    founding: bool
    version: int
    pending: list[tasks.Task] = field(default_factory=list)


class ReplayedSwarm:
    """Goes through the scenario of `run`. What computed on a device that this machine lacks computes on the CPU.

    instead_of : those devices
    on_report : called as (worker, incarnation, kind, body) for each report of a worker
    on_progress : called with the number of events that are done

    Raises RunError when the run was not recorded, or not all of it; CorpusError where a text that a head brought is gone.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        on_report: Callable[[str, int, str, dict[str, Any]], None],
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.run, self.spec, self.info = run, run.spec, run.info
        self._on_report, self._on_progress = on_report, on_progress
        self._streams: dict[_Stream, list[Message]] = defaultdict(list)
        self._stored: dict[tuple[str, int], tuple[bytes, str]] = {}
        self._scenarios = {row["name"]: list(read_scenario(run.worker_folder(row["name"]))) for row in self.info["workers"]}
        if not any(self._scenarios.values()):
            raise RunError(f"run {run.id[:8]} was not recorded; launch it with pl.launch(spec, recorded=True)")
        if away := [row["name"] for row in self.info["workers"] if row.get("remote")]:
            raise RunError(
                f"run {run.id[:8]} cannot be replayed: {', '.join(away)} came by invitation, and what happened to those is "
                "recorded nowhere; workers of run.attach() can be replayed"
            )
        self._home = run.path.parent.parent
        self._corpus = open_corpus(
            self.spec.data, context=self.spec.context, home=self._home, expected_hash=self.info["corpus"]["hash"]
        )
        self.instead_of: set[str] = set()
        self._lives: dict[str, _Life] = {}
        self.num_events = sum(len(lines) for lives in self._scenarios.values() for lines in lives)
        self._num_done = 0

    def main(self) -> str:
        """Go through all events, and return why that was not possible, "" if it was."""
        moved = True
        while moved:
            moved = False
            for name in self._scenarios:
                while self._step(name):
                    moved = True
        stuck = [life for life in self._lives.values() if life.lines]
        if not stuck:
            return ""
        life = stuck[0]
        return f"{life.name} (incarnation {life.incarnation}) had {str(life.lines[0])[:160]}, which does not come about here"

    def _step(self, name: str) -> bool:
        """Take the next event of `name`, if it can happen by now."""
        life = self._lives.get(name)
        if life is None or not life.lines:
            return self._begin_life(name)
        line = life.lines[0]
        event = self._event(life, line)
        if event is None:
            return False
        life.lines.popleft()
        self._num_done += 1
        self._on_progress(self._num_done)
        for effect in life.machine.handle(event, line.get("at", 0.0)):
            self._perform(life, effect)
        return True

    def _event(self, life: _Life, line: Line) -> Event | None:
        """Return the event of `line`, None while what it needs is not there yet."""
        if line["event"] == "Started":
            mark = self._restore(life) if line["founding"] and life.version else None
            on_trial = line.get("on_trial", False)
            return Started(started_peers(line), founding=line["founding"], mark=mark, on_trial=on_trial)
        if line["event"] == "Received":
            waiting = self._streams[line["source"], line["sender"], life.name, life.incarnation]
            found = next((message for message in waiting if identity(message) == line["what"]), None)
            if found is None:
                return None
            waiting.remove(found)
            return Received(line["source"], found)
        if line["event"] in ("Computed", "Refused"):
            task = next((task for task in life.pending if identity(task) == line["what"]), None)
            if task is None:
                return None
            life.pending.remove(task)
            try:
                return Computed(task, life.compute.run(task), line["seconds"])
            except WireError as error:
                return Refused(task, str(error))
        return other_event(line)

    def _perform(self, life: _Life, effect: Effect) -> None:
        if isinstance(effect, Send):
            known = life.machine.desk.roster.get(effect.target)
            if known is not None:
                stream = (life.name, life.incarnation, effect.target, known.incarnation)
                self._streams[stream].append(effect.message)
        elif isinstance(effect, Compute):
            life.pending.append(effect.task)
        elif isinstance(effect, Report):
            self._on_report(life.name, life.incarnation, effect.kind, effect.body)
        elif isinstance(effect, Store):
            self._stored[life.name, effect.version] = (effect.state, effect.digest)

    def _begin_life(self, name: str) -> bool:
        """Begin the next incarnation of `name` that was recorded, if there is one."""
        if not self._scenarios[name]:
            return False
        lines = deque(self._scenarios[name].pop(0))
        if not lines:
            return bool(self._scenarios[name])
        born = lines.popleft()
        self._num_done += 1
        row = next(row for row in self.info["workers"] if row["name"] == name)
        known = {other: row for other, row in ((row["name"], row) for row in self.info["workers"]) if other in born["seats"]}
        folder, vocab = self.run.worker_folder(name), self.info["corpus"]["vocab"]
        key = HotKey.load(folder / "hot.key")
        founding, version = born["founding"], born["version"]
        me = Peer(name, row["stage"], row["replica"], key.address, born["incarnation"], version if founding else None)
        machine = Worker(
            self.spec,
            self.run.id,
            me,
            key,
            keys={other: row["key"] for other, row in known.items()},
            vocab=vocab,
            seats={other: (row["stage"], row["replica"]) for other, row in known.items()},
        )
        corpus = self._corpus if row["stage"] == 0 else None
        own = open_own(folder, self.spec, row.get("data"), vocab=vocab, home=self._home)
        device = self._device(row.get("device", "cpu"))
        compute = StageCompute(self.spec, row["stage"], corpus, vocab=vocab, device=device, own=own)
        self._lives[name] = _Life(name, born["incarnation"], lines, machine, compute, founding, version)
        return True

    def _device(self, recorded: str) -> str:
        """Return where to compute what was computed on the device `recorded`."""
        device = torch.device(recorded)
        if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()):
            return recorded
        self.instead_of.add(recorded)
        return "cpu"

    def _restore(self, life: _Life) -> tasks.SyncMark | None:
        """Load the checkpoint that the worker began with, which it has written here as well."""
        if (life.name, life.version) not in self._stored:
            raise RunError(
                f"{life.name} went on from a checkpoint of round {life.version} that is not in the record; "
                "only what was recorded from its first round on can be replayed"
            )
        state, digest = self._stored[life.name, life.version]
        restored = life.compute.run(tasks.Restore(life.version, state, digest))
        assert isinstance(restored, tasks.RestoreDone)
        return restored.mark
