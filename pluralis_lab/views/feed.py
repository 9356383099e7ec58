"""One reader of a run for all its views in this process: one thread and one fold, shared and counted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pluralis_lab.errors import StoreError
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import live_payload
from pluralis_lab.views.tail import HEARTBEAT_S, Tail

if TYPE_CHECKING:
    from pluralis_lab.store import RunDirectory

Answer = TypeVar("Answer")
Listener = Callable[[dict[str, Any], dict[str, Any]], None]
"""Called with (payload, pulse) from the feed's thread; the payload is the same object for every view: never change it."""
OnReading = Callable[[int, int], None]

_feeds: dict[Path, RunFeed] = {}
_feeds_lock = threading.Lock()


class RunFeed:
    """Follows one run; get it with `RunFeed.shared(run_dir)` and give it back with `release()`.

    The last one to give it back ends the thread. The thread also ends by itself when the run is over; the picture stays.
    """

    def __init__(self, run_dir: RunDirectory) -> None:
        self._run_dir = run_dir
        self._users = 0
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()  # a listener may leave while it is called
        self._questions: queue.SimpleQueue[tuple[Callable[[RunPicture], Any], Future[Any]]] = queue.SimpleQueue()
        self._picture: RunPicture | None = None
        self._payload: dict[str, Any] = {}
        self._pulse: dict[str, Any] = {}
        self._first = threading.Event()
        # The tail calls at each of its looks, also without news, so that questions are answered where the picture is read.
        self._tail = Tail(run_dir, self._look, heartbeat_s=0.0)
        self._told_at = 0.0

    @classmethod
    def shared(cls, run_dir: RunDirectory) -> RunFeed:
        """Return the feed of a run, made and started for the first who asks; each call is to be answered by a `release`."""
        key = run_dir.path.absolute()
        with _feeds_lock:
            feed = _feeds.get(key)
            if feed is None or not feed._is_current():
                feed = _feeds[key] = cls(run_dir)
                feed._tail.start()
            feed._users += 1
            return feed

    def release(self) -> None:
        """Give the feed back."""
        with _feeds_lock:
            self._users -= 1
            if self._users > 0:
                return
            self._tail.close()
            key = self._run_dir.path.absolute()
            if _feeds.get(key) is self:
                del _feeds[key]

    @property
    def num_users(self) -> int:
        return self._users

    @property
    def is_alive(self) -> bool:
        """Whether the thread still waits for news of the run."""
        return self._tail.is_alive

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread has ended; returns whether it has."""
        return self._tail.join(timeout_s)

    def _is_current(self) -> bool:
        """Whether this feed still shows the run as it is: its thread lives, or the run is over and nothing was added since."""
        picture = self._picture
        return self._tail.is_alive or (picture is not None and picture.is_over and picture.seq == self._run_dir.last_seq())

    def now(self, on_reading: OnReading | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the payload and the pulse as they are, after the first reading. Raises StoreError when there is none.

        on_reading : called now and then with (events read, events there) while a long run is read for the first time
        """
        self._await_first(on_reading)
        with self._lock:
            return self._payload, self._pulse

    def listen(self, listener: Listener) -> None:
        """Call `listener` with what is newest, and then with all news and a sign of life every few seconds."""
        with self._lock:
            self._listeners.append(listener)
            if self._first.is_set():
                self._tell(listener)

    def leave(self, listener: Listener) -> None:
        """Call `listener` no more."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def ask(self, question: Callable[[RunPicture], Answer]) -> Answer:
        """Return `question(picture)`, worked out between two readings, so that the picture is whole."""
        self._await_first()
        future: Future[Answer] = Future()
        self._questions.put((question, future))
        while not future.done():
            if self._tail.join(0.05):
                self._answer()
        return future.result()

    def _await_first(self, on_reading: OnReading | None = None) -> None:
        while not self._first.wait(0.1):
            if on_reading is not None and (progress := self._tail.progress) is not None:
                on_reading(*progress)
            if not self._tail.is_alive and not self._first.is_set():
                RunPicture.of(self._run_dir, read=False)  # raises what the thread met, as a rule
                raise StoreError(f"run {self._run_dir.id[:8]} cannot be read; is its folder still there?")

    def _answer(self) -> None:
        with self._lock:
            assert self._picture is not None
            while True:
                try:
                    question, future = self._questions.get_nowait()
                except queue.Empty:
                    return
                try:
                    future.set_result(question(self._picture))
                except Exception as error:
                    # It is raised where the question was asked.
                    future.set_exception(error)

    def _look(self, picture: RunPicture, heard_at: float | None, problem: str) -> None:
        pulse = pulse_of(picture, heard_at, problem)
        is_news = picture.seq != self._payload.get("seq")
        with self._lock:
            self._picture = picture
            if is_news:
                self._payload = live_payload(picture)
            if is_news or problem or pulse["sent"] - self._told_at >= HEARTBEAT_S:
                self._pulse, self._told_at = pulse, pulse["sent"]
                self._first.set()
                for listener in list(self._listeners):
                    self._tell(listener)
        self._answer()

    def _tell(self, listener: Listener) -> None:
        try:
            listener(self._payload, self._pulse)
        except Exception:
            # A view that cannot be fed any more, its page gone, must not end the others'. It shows itself that it is stale.
            self.leave(listener)


def pulse_of(picture: RunPicture, heard_at: float | None, problem: str) -> dict[str, Any]:
    """Return the sign of life: how long the run has been silent when this was sent, in seconds."""
    now = time.time()
    silent_s = picture.silent_s(now, heard_at)
    return {"sent": round(now, 2), "silent_s": None if silent_s is None else round(silent_s, 2), "problem": problem}
