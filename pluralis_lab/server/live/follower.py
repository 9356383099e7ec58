"""The thread that follows one run: reads its events, folds them into the picture, makes the picture's JSON when it is wanted."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from pluralis_lab.errors import PluralisError
from pluralis_lab.gpus import Gpus
from pluralis_lab.server.live.figures import Figures, ProcessFigures
from pluralis_lab.server.live.frame import Frame, picture_message
from pluralis_lab.server.live.picture_text import PictureText
from pluralis_lab.server.live.sketch import sketch
from pluralis_lab.server.metering import Meters
from pluralis_lab.store import Event, EventReader, RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import live_payload

INTERVAL_S = 0.25
"""At most four pictures a second."""
REST = 10.0
"""After a picture that took t seconds to make, the next waits at least 10 t: a large run cannot take a core for itself."""
IDLE_INTERVAL_S = 2.0
"""How often a run that is over is looked at: somebody may resume it."""
CHUNK = 500
FIRST_CHUNK = 100
"""Events of a first read between two turns of the loop: this thread and the loop, which serves kernels, share one interpreter."""
LONG_RUN = 20_000
"""Events above which a first picture is made before all are read."""
SERIES_LIMIT = 1_024
"""Points that a curve keeps in memory; see `views.series.BoundedSeries`."""
FIGURES_S = 4.0
"""How often pictures are made without an event, for the figures of live processes."""


class Follower:
    """Follows `directory` until `close`, and tells what it finds through callbacks, which run in its thread.

    Parameters
    ----------
    wants_pictures : asked before a picture is made: False while nobody could be sent it
    give_way : called between two pieces of a long first read; returns when what else the server has to do is done
    on_ready : there is something to show, `payload` has it; on_frame : a new picture
    on_reading : (events read, events there), while a long run is read for the first time
    on_problem : why nothing more can be read; then the thread ends. True: the run is gone for good
    """

    def __init__(
        self,
        directory: RunDirectory,
        *,
        meters: Meters,
        gpus: Gpus,
        wants_pictures: Callable[[], bool],
        give_way: Callable[[], None],
        on_ready: Callable[[], None],
        on_frame: Callable[[Frame], None],
        on_reading: Callable[[int, int], None],
        on_problem: Callable[[str, bool], None],
    ) -> None:
        self._directory, self._meters = directory, meters
        self._wants_pictures, self._give_way = wants_pictures, give_way
        self._on_ready, self._on_frame = on_ready, on_frame
        self._on_reading, self._on_problem = on_reading, on_problem
        self._figures = ProcessFigures(directory, gpus)
        self._text = PictureText()
        self._lock = threading.Lock()  # the picture is folded in the thread, and read for those who poll in others
        self._picture: RunPicture | None = None
        self._first: RunPicture | None = None
        self._heard_at: float | None = None
        self._number = 0
        self._shown: tuple[int, Figures] = (-1, {})
        self._may_show_at = 0.0
        self._closed, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"pluralis-live-{directory.id[:8]}", daemon=True)
        self.trouble = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ask the thread to end; returns at once."""
        self._closed.set()
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; returns whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Look now, because somebody came who wants a picture."""
        self._wake.set()

    @property
    def seq(self) -> int:
        """The newest event in the picture; 0 before the first."""
        return 0 if self._picture is None else self._picture.seq

    def silent_s(self) -> float | None:
        """Seconds since the run's last event."""
        picture = self._picture or self._first
        return None if picture is None else picture.silent_s(time.time(), self._heard_at)

    def payload(self, num_points: int, since: int) -> tuple[int, dict[str, Any] | None]:
        """Return (seq, picture or None when nothing is newer than `since`) for one who polls; for any thread."""
        with self._lock:
            picture = self._first or self._picture
            if picture is None or (picture.seq <= since and self._first is None):
                return self.seq, None
            return picture.seq, _with_figures(live_payload(picture, num_points=num_points), self._figures.of(picture))

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            with closing(self._directory.reader()) as reader:
                self._picture = RunPicture.of(self._directory, read=False, limit=SERIES_LIMIT)
                self._read_all(reader)
                while not self._closed.is_set():
                    self._wake.wait(self._pause_s())
                    self._wake.clear()
                    if not (self._directory.path / "run.json").exists():
                        self._on_problem(f"run {self._directory.id[:8]} was deleted", True)
                        return
                    while self._read_on(reader) == CHUNK and not self._closed.is_set():
                        self._show(partial=False)
                    self._show(partial=False)
        except (PluralisError, OSError, ValueError, TypeError, KeyError) as error:
            gone = not (self._directory.path / "run.json").exists()
            self._on_problem(f"the run directory cannot be read: {error}" if not gone else "the run was deleted", gone)

    def _read_all(self, reader: EventReader) -> None:
        """Read what is there when the first viewer comes."""
        total = reader.last_seq()
        if total > LONG_RUN:
            self._first = sketch(self._directory, reader, limit=SERIES_LIMIT)
            self._on_ready()
            self._show(partial=True)
        told_at = time.monotonic()
        while self._read_on(reader, FIRST_CHUNK) == FIRST_CHUNK and not self._closed.is_set():
            self._give_way()
            if total > LONG_RUN and time.monotonic() - told_at >= INTERVAL_S:
                told_at = time.monotonic()
                self._on_reading(min(self.seq, total), total)
        with self._lock:
            self._first = None
        self._on_ready()
        if total > LONG_RUN:
            self._on_reading(total, total)
        self._may_show_at = 0.0
        self._show(partial=False)

    def _read_on(self, reader: EventReader, limit: int = CHUNK) -> int:
        """Fold the next events in and return how many there were."""
        assert self._picture is not None
        begun = time.perf_counter()
        events = reader.read(since=self._picture.seq, limit=limit)
        with self._lock:
            self._fold(events)
        if events:
            self._heard_at = time.time()
            self._meters.events.inc(len(events))
            self._meters.fold_s.inc(time.perf_counter() - begun)
        return len(events)

    def _fold(self, events: list[Event]) -> None:
        assert self._picture is not None
        while events:
            try:
                self._picture.update(events)
                break
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # An event that is not what its kind says: it is named and left out, and the view goes on.
                bad = self._picture.seq + 1
                self.trouble = f"event {bad} cannot be understood and is left out: {type(error).__name__}: {error}"[:400]
                self._picture.seq = bad
                events = [event for event in events if event.seq > bad]
        self._picture.forget_old()

    def _pause_s(self) -> float:
        """How long to wait before the next look: until the next picture may be made, if there is news for one."""
        assert self._picture is not None
        if self._is_unseen():
            early = self._may_show_at - time.monotonic()
            return min(early, INTERVAL_S) if early > 0 else INTERVAL_S
        return IDLE_INTERVAL_S if self._picture.is_over else INTERVAL_S

    def _is_unseen(self) -> bool:
        assert self._picture is not None
        return self._picture.seq != self._shown[0]

    def _show(self, *, partial: bool) -> None:
        """Make a frame, if there is news, somebody to send it to, and the last one is long enough ago."""
        picture = self._first if partial else self._picture
        assert picture is not None
        now = time.monotonic()
        is_news = partial or self._is_unseen()
        is_stale = not picture.is_over and now - self._may_show_at >= FIGURES_S and bool(self._shown[1])
        if not (is_news or is_stale) or now < self._may_show_at or not (self._wants_pictures() or (picture.is_over and is_news)):
            return
        begun = time.perf_counter()
        with self._lock:
            figures = self._figures.of(picture)
            text = picture_message(self._text.of(picture, figures), partial=partial)
            self._number += 1
            frame = Frame(self._number, picture.seq, text, picture.is_over and not partial)
            if not partial:
                self._shown = (picture.seq, figures)
        took = time.perf_counter() - begun
        self._may_show_at = now + max(INTERVAL_S, (REST + 1) * took)
        self._meters.encode_s.inc(took)
        self._meters.pictures.inc()
        self._on_frame(frame)


def _with_figures(payload: dict[str, Any], figures: Figures) -> dict[str, Any]:
    for worker in payload["workers"]:
        worker.update(figures.get(worker["name"], {}))
    return payload
