"""From a run's id to its directory, and never out of a root: no links, no other user's files, no paths in disguise."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pluralis_lab.errors import StoreError
from pluralis_lab.server.refusals import no_such_run
from pluralis_lab.store import RUN_ID, RunDirectory

_OUR_FILES = ("run.json", "spec.json", "events.db", "events.db-wal", "control.json", "evidence", "logs", "workers")
"""What is read of a run. A link in such a place could point anywhere."""


class Roots:
    """The homes that this server shows.

    Raises
    ------
    Refusal : 404, for an id that is not exactly 64 lower-case hexadecimal characters or leads to no run of ours.
    """

    def __init__(self, homes: tuple[Path, ...]) -> None:
        self.homes = homes

    def find(self, run_id: str) -> RunDirectory:
        """Return the run `run_id`."""
        if RUN_ID.fullmatch(run_id):
            for home in self.homes:
                path = home / "runs" / run_id
                if _is_ours(home, path):
                    try:
                        return RunDirectory(path)
                    except StoreError:
                        continue
        raise no_such_run(run_id)

    def all(self) -> Iterator[RunDirectory]:
        """Go through the runs of all roots, in no order; an id that is in two roots is shown once."""
        seen: set[str] = set()
        for home in self.homes:
            for path in _listed(home / "runs"):
                if RUN_ID.fullmatch(path.name) and path.name not in seen and _is_ours(home, path):
                    try:
                        run = RunDirectory(path)
                    except StoreError:
                        continue  # its directory is being made or removed
                    seen.add(path.name)
                    yield run


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _is_ours(home: Path, path: Path) -> bool:
    """Say whether `path` is a directory of this user inside `home`, with no link in any place that is read."""
    try:
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            return False
        if not path.resolve().is_relative_to(home.resolve() / "runs"):
            return False
    except OSError:
        return False
    return not any((path / name).is_symlink() for name in _OUR_FILES)
