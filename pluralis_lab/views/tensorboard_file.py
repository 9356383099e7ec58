"""A TensorBoard event file that can be added to: it remembers up to which event of the run it is complete."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pluralis_lab.errors import StoreError
from pluralis_lab.store.files import write_atomic

STATE_NAME = "pluralis.json"


@dataclass(frozen=True)
class Mark:
    """How far the file goes: the run's events up to `seq` are its first `size_bytes` bytes; `round` is the last one in it."""

    run: str
    seq: int = 0
    size_bytes: int = 0
    round: int = -1


class EventFile:
    """One event file in `folder`, open for adding; use as a context manager. One process at a time: a second one waits.

    Whatever a writer that was cut off left after the last mark is thrown away, so that nothing is in the file twice.

    Parameters
    ----------
    folder : where the file is; made if need be
    name : the file's name; TensorBoard wants "tfevents" in it
    run : the id of the run that the file is about

    Raises
    ------
    StoreError : the folder is another run's, or cannot be written
    """

    def __init__(self, folder: Path, name: str, run: str) -> None:
        self.path, self._state, self._run = folder / name, folder / STATE_NAME, run
        self.mark = Mark(run)

    @contextmanager
    def opened(self) -> Iterator[EventFile]:
        """Hold the file, cut to its mark, while the block runs."""
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{self.path.parent} cannot be written ({error.strerror}); choose another folder") from None
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.mark = self._last_mark(os.fstat(file.fileno()).st_size)
            file.truncate(self.mark.size_bytes)
            file.seek(self.mark.size_bytes)
            self._file, self._records = file, RecordWriter(file)
            yield self

    def _last_mark(self, size_bytes: int) -> Mark:
        try:
            mark = Mark(**json.loads(self._state.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return Mark(self._run)
        if mark.run != self._run:
            raise StoreError(f"{self.path.parent} holds the event file of run {mark.run[:12]}; choose another folder")
        return mark if mark.size_bytes <= size_bytes else Mark(self._run)

    def begin_again(self) -> None:
        """Throw away what is in the file."""
        self.mark = Mark(self._run)
        self._file.seek(0)
        self._file.truncate()

    def write(self, event: Any) -> None:
        """Add one TensorBoard event."""
        self._records.write(event.SerializeToString())

    def commit(self, *, seq: int, round: int) -> None:
        """Make what was written last, and note that the run's events up to `seq` are in the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.mark = Mark(self._run, seq, self._file.tell(), round)
        write_atomic(self._state, json.dumps(asdict(self.mark)).encode())
