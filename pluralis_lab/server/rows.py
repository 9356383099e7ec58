"""Rows of the list of runs: read from disk once, and again when a file of the run has changed."""

from pathlib import Path
from typing import Any, cast

from pluralis_lab.engines import processes
from pluralis_lab.engines.control import is_alive, read_control
from pluralis_lab.errors import PluralisError
from pluralis_lab.server.settings import Settings
from pluralis_lab.server.shapes.runs import RunRow, RunState
from pluralis_lab.store import EventReader, RunDirectory
from pluralis_lab.views.picture_parts import LIVE_STATES, finite

SPEED_ROUNDS = 20
_SIGNS = ("run.json", "spec.json", "control.json", "events.db", "events.db-wal")
_LIVE = ("starting", "running", "paused", "serving")
LOOPBACK = "127.0.0.1"
LOST = "its process is gone; resume goes on from the last checkpoint"


class Rows:
    """Makes rows; safe to use from several threads (two may do the same work, none gets half of it)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[Path, tuple[tuple[int, ...], RunRow]] = {}

    def row(self, run: RunDirectory) -> RunRow:
        """Return the row of `run`; one that cannot be read is a row that says so."""
        try:
            state = self.state(run)
            sign = _sign(run.path)
            known = self._known.get(run.path)
            if known is None or known[0] != sign:
                known = self._known[run.path] = (sign, _read(run))
            return cast(RunRow, {**known[1], "state": state[0], "reason": state[1]})
        except (PluralisError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            return _damaged(run, str(error) or type(error).__name__)

    def state(self, run: RunDirectory) -> tuple[RunState, str]:
        """Return (state, reason) as they are now. Cleans up after a killed process, unless this server is to change nothing."""
        if not self._settings.read_only:
            processes.is_running(run)
            info = run.info
            return info["state"], str(info.get("reason") or "")
        info = run.info
        control = read_control(run)
        if info["state"] in _LIVE and control is not None and not is_alive(control):
            return "failed", LOST
        return info["state"], str(info.get("reason") or "")

    def keep_only(self, paths: set[Path]) -> None:
        """Forget runs that are gone."""
        for path in list(self._known):
            if path not in paths:
                self._known.pop(path, None)


def _sign(path: Path) -> tuple[int, ...]:
    sign: list[int] = []
    for name in _SIGNS:
        try:
            facts = (path / name).stat()
            sign += (facts.st_mtime_ns, facts.st_size)
        except FileNotFoundError:
            sign += (0, 0)
    return tuple(sign)


def _read(run: RunDirectory) -> RunRow:
    info, spec = run.info, run.spec
    reader = EventReader(run.path / "events.db")
    try:
        rounds, validation = reader.newest("round", SPEED_ROUNDS), reader.last("validation")
        live = _num_live(reader) if info["state"] in _LIVE else None
    finally:
        reader.close()
    speeds = [value for event in rounds if (value := finite(event.body.get("tokens_per_s"))) is not None]
    chain = info.get("chain") or {}
    return {
        "id": run.id,
        "name": str(info.get("name") or run.id[:8]),
        "state": info["state"],
        "reason": str(info.get("reason") or ""),
        "engine": str(info.get("engine", "swarm")),
        "created": float(info["created"]),
        "data": spec.data,
        "stages": spec.stages,
        "replicas": spec.replicas,
        "workers": len(info.get("workers") or ()),
        "live_workers": live,
        "rounds_done": (rounds[-1].round or 0) + 1 if rounds else 0,
        "steps": spec.steps,
        "loss": finite(rounds[-1].body.get("loss")) if rounds else None,
        "validation": None if validation is None else finite(validation.body.get("loss")),
        "tokens_per_s": sum(speeds) / len(speeds) if speeds else None,
        "unigram_nats": finite((info.get("corpus") or {}).get("unigram_nats")),
        "participants": [str(entry["name"]) for entry in info.get("participants") or ()],
        "account": str(info.get("account") or ""),
        "chain": str(chain.get("kind") or "none"),
        "host": str(info.get("host") or LOOPBACK),
        "own_data": spec.own_data,
    }


def _num_live(reader: EventReader) -> int:
    states: dict[str | None, Any] = {event.worker: event.body.get("state") for event in reader.read(kinds=["worker.state"])}
    return sum(state in LIVE_STATES for state in states.values())


def _damaged(run: RunDirectory, reason: str) -> RunRow:
    try:
        created = (run.path / "run.json").stat().st_mtime
    except OSError:
        created = 0.0
    return {
        "id": run.id,
        "name": run.id[:8],
        "state": "damaged",
        "reason": reason[:400],
        "engine": "swarm",
        "created": created,
        "data": "",
        "stages": 0,
        "replicas": 0,
        "workers": 0,
        "live_workers": None,
        "rounds_done": 0,
        "steps": 0,
        "loss": None,
        "validation": None,
        "tokens_per_s": None,
        "unigram_nats": None,
        "participants": [],
        "account": "",
        "chain": "none",
        "host": "",
        "own_data": 0.0,
    }
