"""A run's folder: what is in it, how it is made and how it is found again."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from pluralis_lab.errors import RunError, StoreError
from pluralis_lab.spec import RunSpec
from pluralis_lab.store.events import Event, EventReader, EventWriter
from pluralis_lab.store.evidence import EvidenceFolder
from pluralis_lab.store.files import write_atomic
from pluralis_lab.store.home import lab_home

_PROCESS_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
RUN_ID = re.compile(r"[0-9a-f]{64}")


def new_run_id(spec_hash: str, founder: str, nonce: bytes | None = None) -> str:
    """Return the hash of (spec hash, founder's address, 32 random bytes): 64 hexadecimal characters, a bytes32 on chain."""
    nonce = secrets.token_bytes(32) if nonce is None else nonce
    return hashlib.sha256(bytes.fromhex(spec_hash) + bytes.fromhex(founder.removeprefix("0x")) + nonce).hexdigest()


class RunDirectory:
    """One run on disk: `spec.json`, `run.json`, `events.db`, `evidence/`, `logs/`, `workers/`.

    Raises
    ------
    StoreError : the folder is not a run's, or a file in it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "run.json").exists():
            raise StoreError(f"{self.path.name!r} is not a run: it has no run.json")
        self._reader = EventReader(self.path / "events.db")

    @classmethod
    def create(cls, home: Path, spec: RunSpec, info: dict[str, Any]) -> "RunDirectory":
        """Make the folder of run ``info["id"]`` with its spec and first facts."""
        path = home / "runs" / info["id"]
        for folder in ("evidence", "logs", "workers"):
            (path / folder).mkdir(mode=0o700, parents=True)
        write_atomic(path / "spec.json", spec.to_json())
        EventWriter(path / "events.db").close()
        write_atomic(path / "run.json", json.dumps(info, indent=1).encode())
        return cls(path)

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def spec(self) -> RunSpec:
        return RunSpec.from_json((self.path / "spec.json").read_bytes())

    @property
    def info(self) -> dict[str, Any]:
        """The facts of `run.json` as they are now."""
        try:
            return dict(json.loads((self.path / "run.json").read_bytes()))
        except ValueError as error:
            raise StoreError(f"run.json of {self.id[:8]} is damaged: {error}") from None

    def update_info(self, **facts: Any) -> None:
        """Change some facts of `run.json` in one step."""
        write_atomic(self.path / "run.json", json.dumps({**self.info, **facts}, indent=1).encode())

    @property
    def evidence(self) -> EvidenceFolder:
        return EvidenceFolder(self.path / "evidence")

    def writer(self) -> EventWriter:
        """Open the events for writing: only the run's supervisor does."""
        return EventWriter(self.path / "events.db")

    def events(self, since: int = 0, kinds: Iterable[str] | None = None, limit: int | None = None) -> list[Event]:
        """Return events with ``seq > since``, oldest first."""
        return self._reader.read(since=since, kinds=kinds, limit=limit)

    def reader(self) -> EventReader:
        """Return a reader of its own, for another thread."""
        return EventReader(self.path / "events.db")

    def last_seq(self) -> int:
        return self._reader.last_seq()

    def last(self, kind: str) -> Event | None:
        return self._reader.last(kind)

    def log_tail(self, name: str, *, lines: int = 20) -> str:
        """Return the end of `logs/NAME.log`, empty when there is none."""
        file = self.path / "logs" / f"{_plain(name)}.log"
        if not file.exists():
            return ""
        with open(file, "rb") as stream:
            stream.seek(max(0, file.stat().st_size - 16_384))
            text = stream.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def worker_folder(self, name: str) -> Path:
        """Return the worker's own folder (0700), where its key and its checkpoints stay."""
        folder = self.path / "workers" / _plain(name)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


def _plain(name: str) -> str:
    """Return `name` if it is one file's name and no path. Raises StoreError otherwise."""
    if not _PROCESS_NAME.fullmatch(name):
        raise StoreError(f"{name[:80]!r} is no process of a run; they are 'supervisor' and 'worker-0', 'worker-1', ...")
    return name


def list_runs(home: Path | None = None) -> list[RunDirectory]:
    """Return all runs of this home, oldest first."""
    folder = lab_home(home) / "runs"
    found = [RunDirectory(path) for path in folder.glob("*") if RUN_ID.fullmatch(path.name) and (path / "run.json").exists()]
    return sorted(found, key=_created)


def _created(run: RunDirectory) -> float:
    """Return when `run` was made (seconds since 1970), 0 for one whose facts cannot be read: it must not hide the others."""
    try:
        return float(run.info["created"])
    except (StoreError, OSError, KeyError, TypeError, ValueError):
        return 0.0


def find_run(prefix: str, home: Path | None = None) -> RunDirectory:
    """Return the one run whose id begins with `prefix`.

    Raises RunError when the prefix is not hexadecimal, or no run or more than one has it.
    """
    if not re.fullmatch(r"[0-9a-f]{1,64}", prefix):
        raise RunError(f"run id {prefix[:80]!r} is not hexadecimal; `pluralis-lab runs` lists the ids")
    matches = [run for run in list_runs(home) if run.id.startswith(prefix)]
    if not matches:
        raise RunError(f"no run {prefix!r} under {(lab_home(home) / 'runs').name}/; `pluralis-lab runs` lists the ids")
    if len(matches) > 1:
        ids = ", ".join(run.id[:12] for run in matches)
        raise RunError(f"{len(matches)} runs begin with {prefix!r}; give more of the id: {ids}")
    return matches[0]
