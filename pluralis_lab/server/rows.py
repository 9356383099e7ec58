"""Rows of the list of runs: read from disk once, and again when a file of the run has changed."""

import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

from pluralis_lab.engines import processes
from pluralis_lab.engines.control import is_alive, read_control
from pluralis_lab.errors import PluralisError
from pluralis_lab.server.settings import Settings
from pluralis_lab.server.shapes.runs import RunRow, RunState
from pluralis_lab.store import EventReader, RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.fold_events import FOLDS
from pluralis_lab.views.picture_parts import IDLE_ROUNDS, RECENT_ROUNDS, finite
from pluralis_lab.views.record import stage_delays

SPEED_ROUNDS = 20
MAX_REPORTS = 1_000
"""Reports of workers that a row is made from, however long the run; with more workers than half as many, two of each."""
REST = 10
"""How its workers do is read again after as many times the time that reading took: many viewers of a large run cost no more."""
CURVE_POINTS = 16
"""A row shows no curve: the picture that it is made from keeps as little of them as it may."""
_SIGNS = ("run.json", "spec.json", "control.json", "events.db", "events.db-wal")
_LIVE = ("starting", "running", "paused", "serving")
LOOPBACK = "127.0.0.1"
LOST = "its process is gone; resume goes on from the last checkpoint"


class Rows:
    """Makes rows; safe to use from several threads (two may do the same work, none gets half of it)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[Path, tuple[tuple[int, ...], RunRow]] = {}
        self._done: dict[Path, tuple[float, dict[str, Any]]] = {}
        """Until when what is known of a live run's workers will do, and that."""

    def row(self, run: RunDirectory) -> RunRow:
        """Return the row of `run`; one that cannot be read is a row that says so."""
        try:
            state = self.state(run)
            sign = _sign(run.path)
            known = self._known.get(run.path)
            if known is None or known[0] != sign:
                workers, is_new = self._workers(run)
                known = (sign if is_new else (), cast(RunRow, {**_read(run), **workers}))
                self._known[run.path] = known
            return cast(RunRow, {**known[1], "state": state[0], "reason": state[1]})
        except (PluralisError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            return _damaged(run, str(error) or type(error).__name__)

    def _workers(self, run: RunDirectory) -> tuple[dict[str, Any], bool]:
        """Return how the workers of `run` do, and whether that is as new as its files."""
        begun, is_live = time.monotonic(), run.info["state"] in _LIVE
        until, known = self._done.get(run.path, (0.0, {}))
        if is_live and begun < until:
            return known, False
        workers = _workers(run, is_live=is_live)
        if is_live:
            now = time.monotonic()
            self._done[run.path] = (now + REST * (now - begun), workers)
        return workers, True

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
                self._done.pop(path, None)


def _sign(path: Path) -> tuple[int, ...]:
    sign: list[int] = []
    for name in _SIGNS:
        try:
            facts = (path / name).stat()
            sign += (facts.st_mtime_ns, facts.st_size)
        except FileNotFoundError:
            sign += (0, 0)
    return tuple(sign)


def _read(run: RunDirectory) -> dict[str, Any]:
    """Return the row without what `_workers` tells."""
    info, spec = run.info, run.spec
    reader = EventReader(run.path / "events.db")
    try:
        rounds, validation = reader.newest("round", SPEED_ROUNDS), reader.last("validation")
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


def _workers(run: RunDirectory, *, is_live: bool) -> dict[str, Any]:
    """Return how the workers of `run` do, of one that has ended only how late its stages were."""
    facts: dict[str, Any] = dict.fromkeys(("live_workers", "idle_workers", "bytes_per_s", "stage_delay"))
    facts["phases"] = {}
    if not (is_live or run.spec.is_async):
        return facts
    picture = RunPicture.of(run, read=False, limit=CURVE_POINTS)
    num_workers = len(picture.workers)
    num_rounds = _num_rounds(num_workers) if is_live else 1
    with closing(EventReader(run.path / "events.db")) as reader:
        events = reader.newest("worker.round", num_workers * num_rounds)
        if is_live:
            events = sorted([*events, *reader.read(kinds=["run.state", "worker.state"])], key=lambda event: event.seq)
    for event in events:
        # One that cannot be understood is named where the whole run is read; here it is only left out.
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            FOLDS[event.kind](picture, event)
    facts["stage_delay"] = max(stage_delays(picture), default=None)
    if is_live:
        facts |= {"live_workers": picture.num_live, "phases": picture.phases(), "bytes_per_s": picture.bytes_per_s}
        facts["idle_workers"] = picture.num_idle if num_rounds > IDLE_ROUNDS else None
    return facts


def _num_rounds(num_workers: int) -> int:
    """Return of how many rounds the reports of so many workers are read: one more than are counted, or as many as may be."""
    return max(2, min(RECENT_ROUNDS + 1, MAX_REPORTS // max(1, num_workers)))


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
        "live_workers": None,
        "phases": {},
        "idle_workers": None,
        "bytes_per_s": None,
        "stage_delay": None,
    }
