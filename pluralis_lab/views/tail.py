"""A reader that follows a run's events in a thread of its own and hands on the picture, at most four times a second."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pluralis_lab.errors import PluralisError
from pluralis_lab.views.fold import RunPicture

if TYPE_CHECKING:
    from pluralis_lab.store import EventReader, RunDirectory

MIN_INTERVAL_S = 0.25
HEARTBEAT_S = 4.0
CHUNK = 5_000
"""Events read at once: a long run is not held in memory twice, and its reading can be followed and given up."""


class Tail:
    """Follow `run_dir` and call `on_picture(picture, heard_at, problem)` from a daemon thread.

    It is called when there are new events, at most every `interval_s` seconds, and every `heartbeat_s` seconds without any,
    so that whoever shows the picture can tell a silent run from a silent reader. `heard_at` is the unix time of the last
    new event, `problem` a text when the run directory can no longer be read (then the tail ends). The tail ends by itself
    when the run is over and nothing new has come. The thread prints nothing.
    """

    def __init__(
        self,
        run_dir: RunDirectory,
        on_picture: Callable[[RunPicture, float | None, str], None],
        *,
        interval_s: float = MIN_INTERVAL_S,
        heartbeat_s: float = HEARTBEAT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run_dir = run_dir
        self._on_picture = on_picture
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self.progress: tuple[int, int] | None = None
        """(events read, events there) while many are read at once."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"pluralis-tail-{run_dir.id[:8]}", daemon=True)

    def start(self) -> None:
        """Start the thread; it ends with the interpreter, before there is nothing left to send with."""
        atexit.register(self._closed.set)
        self._thread.start()

    def close(self) -> None:
        """Ask the thread to end; returns at once."""
        self._closed.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread has ended; returns whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _follow(self) -> None:
        # SQLite connections belong to one thread: this one reads with its own.
        reader = self._run_dir.reader()
        try:
            self._read_on(reader)
        finally:
            reader.close()
            atexit.unregister(self._closed.set)

    def _read_on(self, reader: EventReader) -> None:
        picture: RunPicture | None = None
        heard_at: float | None = None
        told_at: float | None = None
        while not self._closed.is_set():
            try:
                if picture is None:
                    picture = RunPicture.of(self._run_dir, read=False)
                before = picture.seq
                self._catch_up(picture, reader)
            except (PluralisError, OSError) as error:
                if picture is not None:
                    self._on_picture(picture, heard_at, f"the run directory cannot be read: {error}")
                return
            if self._closed.is_set():
                return
            now = self._clock()
            is_news = picture.seq > before
            if is_news:
                heard_at = now
            if is_news or told_at is None or now - told_at >= self._heartbeat_s:
                self._on_picture(picture, heard_at, "")
                told_at = now
            if picture.is_over and not is_news:
                return
            self._closed.wait(self._interval_s)

    def _catch_up(self, picture: RunPicture, reader: EventReader) -> None:
        """Fold in all that there is, as far as this tail is not closed meanwhile."""
        while len(events := reader.read(since=picture.seq, limit=CHUNK)) == CHUNK and not self._closed.is_set():
            picture.update(events)
            self.progress = (picture.seq, max(picture.seq, reader.last_seq()))
        picture.update(events)
        self.progress = None
