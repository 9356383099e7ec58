"""What happened to each worker of a run, event by event: enough to go through the run once more without its network.

A line is one event, written before the worker acts on it. A message is named by what it is about and not by its bytes: who
replays computes those again.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pluralis_lab.engines.scenario_files import recorded_incarnations, scenario_path
from pluralis_lab.errors import StoreError
from pluralis_lab.learning.tasks import Task
from pluralis_lab.worker import (
    Computed,
    Enrolled,
    Event,
    Leave,
    Peer,
    PeerLost,
    Probed,
    Prompted,
    Received,
    Refused,
    Started,
    Withdrawn,
    Woken,
)
from pluralis_lab.worker.messages import Hello, Message

Line = dict[str, Any]

_TELLING = (
    "round",
    "index",
    "chunk",
    "indices",
    "worker",
    "version",
    "request",
    "incarnation",
    "since",
    "answer",
    "start",
    "attempt",
    "position",
    "number",
)
"""Fields that tell a message or a task from the others under way between two workers."""
_AS_THEY_ARE: dict[str, Callable[..., Event]] = {
    kind.__name__: kind for kind in (PeerLost, Enrolled, Leave, Prompted, Probed, Withdrawn, Woken)
}


def identity(item: Message | Task) -> list[Any]:
    """Return what names a message or a task: its type, and of its fields those that are numbers or names."""
    known = {field.name for field in fields(item)}
    values = [getattr(item, name) for name in _TELLING if name in known]
    return [type(item).__name__, *(list(value) if isinstance(value, tuple) else value for value in values)]


class ScenarioLog:
    """Writes the events of one incarnation of a worker; a line is on its way to the disk before `note` returns.

    Raises FileExistsError where that incarnation was recorded already: what an earlier start wrote is never overwritten; and
    StoreError where the disk takes no more.
    """

    def __init__(self, folder: Path, incarnation: int, **facts: Any) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(scenario_path(folder, incarnation), flags, 0o600)
        self._write({"event": "born", "incarnation": incarnation, **facts})

    def note(self, event: Event, *, at: float, sender: int = 0) -> None:
        """Write `event`, taken `at` that second of the engine's clock; of a message `sender` is the incarnation that sent it."""
        line: Line = {"event": type(event).__name__, "at": at}
        if isinstance(event, Received):
            line |= {"source": event.source, "sender": sender, "what": identity(event.message)}
        elif isinstance(event, Computed):
            line |= {"what": identity(event.task), "seconds": event.seconds}
        elif isinstance(event, Refused):
            line |= {"what": identity(event.task), "seconds": 0.0}
        elif isinstance(event, Started):
            line |= {"peers": [asdict(peer) for peer in event.peers], "founding": event.founding, "on_trial": event.on_trial}
        else:
            line |= asdict(event)
        self._write(line)

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: Line) -> None:
        """Raise StoreError where the disk does not take the whole line."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise StoreError(
                f"what happens to this worker could not be recorded ({error.strerror}); make room and run.resume(), "
                "or launch it without recorded=True"
            ) from None


def read_scenario(folder: Path) -> Iterator[list[Line]]:
    """Yield the lines of each incarnation that was recorded in a worker's folder, the first one first.

    One that died before it began its record is left out. Raises StoreError for a line that is none of ours; one that was cut by
    a power cut ends its incarnation.
    """
    for incarnation in recorded_incarnations(folder):
        path, lines = scenario_path(folder, incarnation), []
        for number, raw in enumerate(path.read_bytes().split(b"\n")):
            try:
                line = json.loads(raw)
            except ValueError:
                break
            if not isinstance(line, dict) or not isinstance(line.get("event"), str):
                raise StoreError(f"line {number + 1} of {path.name} is no event of a worker; record the run anew")
            lines.append(line)
        yield lines


def other_event(line: Line) -> Event:
    """Return the event of a line that is neither a start, nor a message, nor arithmetic. Raises StoreError for a strange one."""
    rest = {
        name: tuple(value) if isinstance(value, list) else value for name, value in line.items() if name not in ("event", "at")
    }
    try:
        event = _AS_THEY_ARE[line["event"]](**rest)
    except (KeyError, TypeError) as error:
        raise StoreError(f"{str(line)[:80]} is no event of a worker ({error}); record the run anew") from None
    return event


def started_peers(line: Line) -> tuple[Peer, ...]:
    """Return whom a worker knew when it began."""
    return tuple(Peer(**peer) for peer in line["peers"])


def sender_of(event: Received, known: Peer | None) -> int | None:
    """Return the incarnation that sent a message; None where the worker knows nobody of that name, and drops it."""
    if isinstance(event.message, Hello):
        return event.message.incarnation
    return None if known is None else known.incarnation
