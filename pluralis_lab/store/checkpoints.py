"""A worker's own checkpoints: one safetensors file for each version, named by its content, readable by its owner alone.

Replicas of a stage that are in step write the same bytes, so each is there as often as there are replicas.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pluralis_lab.errors import StoreError
from pluralis_lab.spec import RunSpec
from pluralis_lab.store.files import write_atomic

_NAME = re.compile(r"checkpoint-(\d+)-([0-9a-f]{64})\.safetensors")

WRITTEN_AT_ONCE_BYTES = 1 << 20
"""A larger checkpoint is not written on an event loop: the disk may take seconds, in which a worker has to answer the others."""

RECORD_BEHIND_ROUNDS = 8
"""The record of a run that is killed may end so many rounds before the newest checkpoint, which then cannot be gone on from."""


def versions_kept(spec: RunSpec) -> int:
    """Return how many versions a worker keeps, so that at every moment there is one that all stages have.

    When everything stops, a stage may be `RunSpec.window` + 1 rounds ahead of another, and has to have what that one wrote last.
    """
    return 2 + (spec.window + 1 + RECORD_BEHIND_ROUNDS) // spec.checkpoint_every


class CheckpointFolder:
    """Keeps the last `keep` versions."""

    def __init__(self, path: Path, *, keep: int = 2) -> None:
        self.path, self._keep = path, keep

    def save(self, version: int, state: bytes, digest: str) -> int:
        """Write `state` and return its size in bytes. Raises OSError when the disk is full; older versions stay."""
        write_atomic(self.path / f"checkpoint-{version}-{digest}.safetensors", state, mode=0o600)
        until_now = [one for one in self.versions() if one <= version]
        old = [file for outdated in until_now[: -self._keep] for file in self._files(outdated)]
        # A run that went on from an earlier round may reach this version again with other bits: the new ones count.
        old += [file for file in self._files(version) if digest not in file.name]
        _remove(old)
        return len(state)

    def forget_after(self, version: int) -> None:
        """Remove what was written after `version`, from which the run goes on: its rounds are trained again."""
        _remove(file for later in self.versions() if later > version for file in self._files(later))

    def hand_over(self, to: "CheckpointFolder") -> None:
        """Give another replica of the stage the versions that it lacks, as they are: `load` notices a damaged one.

        Raises OSError when the disk is full.
        """
        lacking = set(self.versions()) - set(to.versions())
        for version in lacking:
            file = self._files(version)[-1]
            try:
                os.link(file, to.path / file.name)
            except FileExistsError:  # the other has just written it
                continue
            except OSError:  # a file system without links
                shutil.copy2(file, to.path / file.name)

    def versions(self) -> list[int]:
        """Return the versions that are here, ascending."""
        return sorted({int(match[1]) for file in self.path.glob("checkpoint-*") if (match := _NAME.fullmatch(file.name))})

    def load(self, version: int) -> tuple[bytes, str]:
        """Return (state, digest). Raises StoreError for a version that is missing or damaged."""
        files = self._files(version)
        if not files:
            raise StoreError(f"no checkpoint of round {version} here; there are {self.versions()}")
        file = files[-1]
        match = _NAME.fullmatch(file.name)
        state = file.read_bytes()
        if match is None or hashlib.sha256(state).hexdigest() != match[2]:
            raise StoreError(f"{file.name} is damaged: its content has another digest; resume from an earlier checkpoint")
        return state, match[2]

    def is_intact(self, version: int) -> bool:
        """Say whether the checkpoint of `version` is here and holds what its name says."""
        try:
            self.load(version)
        except (StoreError, OSError):
            return False
        return True

    def _files(self, version: int) -> list[Path]:
        """Return the files of `version`, the latest written last."""
        return sorted(self.path.glob(f"checkpoint-{version}-*.safetensors"), key=lambda file: file.stat().st_mtime_ns)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def newest_common(folders: list[list[CheckpointFolder]], *, up_to: int) -> int:
    """Return the newest version, not above `up_to`, that every stage has at least once undamaged (`folders` by stage); else 0."""
    for version in reversed(common_versions(folders)):
        if version <= up_to and all(any(folder.is_intact(version) for folder in stage) for stage in folders):
            return version
    return 0


def common_versions(folders: list[list[CheckpointFolder]]) -> list[int]:
    """Return the versions that every stage has at least once (`folders` by stage), ascending."""
    per_stage = [{version for folder in stage for version in folder.versions()} for stage in folders]
    return sorted(set.intersection(*per_stage))
