"""One followed run on the server's loop: its newest frame, its viewers, and the pulse that tells them that all is well."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pluralis_lab.gpus import Gpus
from pluralis_lab.server.encoding import to_json
from pluralis_lab.server.live.follower import Follower
from pluralis_lab.server.live.frame import Frame
from pluralis_lab.server.live.viewer import Viewer
from pluralis_lab.server.metering import Meters
from pluralis_lab.store import RunDirectory

PULSE_S = 4.0
GONE, UNREADABLE = 4404, 4409
"""The socket's closing codes when the run is deleted, and when it can no longer be read."""
FIRST_PICTURE_S = 5.0
LOOP_TURN_S = 0.1
"""The longest that a first read waits for the loop, which may have ended."""


class LiveRun:
    """Joins one `Follower` (a thread) with any number of `Viewer`s (on the loop). Its methods are for the loop's thread.

    on_end : called once when the run can no longer be followed
    """

    def __init__(self, directory: RunDirectory, *, meters: Meters, gpus: Gpus, on_end: Callable[["LiveRun"], None]) -> None:
        self.id = directory.id
        self.viewers: tuple[Viewer, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._frame: Frame | None = None
        self._problem = ""
        self._ending_code = 0
        self._has_data = asyncio.Event()
        self._on_end = on_end
        self._follower = Follower(
            directory,
            meters=meters,
            gpus=gpus,
            # Read by the follower's thread: the tuple is replaced, never changed.
            wants_pictures=lambda: any(viewer.takes_pictures for viewer in self.viewers),
            give_way=self._take_turns,
            on_ready=functools.partial(self._from_thread, self._has_data.set),
            on_frame=functools.partial(self._from_thread, self._take_frame),
            on_reading=functools.partial(self._from_thread, self._take_reading),
            on_problem=functools.partial(self._from_thread, self._take_problem),
        )
        self._follower.start()
        self._pulse = self._loop.call_later(PULSE_S, self._beat)

    def _from_thread(self, call: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has been closed: the server is ending, and nobody is left to tell
            self._loop.call_soon_threadsafe(call, *arguments)

    def _take_turns(self) -> None:
        """Wait, in the follower's thread, until the loop has done all that was ready, requests that came meanwhile among it."""
        turn = threading.Event()
        # In two steps: the loop reads its sockets between them.
        self._from_thread(self._loop.call_soon, turn.set)
        turn.wait(LOOP_TURN_S)

    def close(self) -> Follower:
        """Let go of the run; returns the follower, whose thread ends soon."""
        self._pulse.cancel()
        self._follower.close()
        return self._follower

    def add(self, viewer: Viewer) -> None:
        """Take a viewer in; it gets the newest picture at once if there is one."""
        self.viewers = (*self.viewers, viewer)
        viewer.offer(self._fresh_frame())
        if self._ending_code:
            viewer.line.end(self._ending_code, self._problem[:120])
        self._follower.wake()

    def remove(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        self.viewers = tuple(other for other in self.viewers if other is not viewer)

    def acknowledge(self, viewer: Viewer, seq: int) -> None:
        """A viewer has drawn a picture."""
        viewer.acknowledge(seq, self._frame)

    def set_visible(self, viewer: Viewer, visible: bool) -> None:
        """A viewer is hidden, or seen again."""
        viewer.set_visible(visible, self._fresh_frame())
        if visible:
            self._follower.wake()

    def _fresh_frame(self) -> Frame | None:
        """The newest frame, if it holds all that is known: else the thread makes one as soon as it is woken."""
        return self._frame if self._frame is not None and self._frame.seq == self._follower.seq else None

    async def poll(self, num_points: int, since: int) -> tuple[int, dict[str, Any] | None, float | None, str]:
        """Return (seq, picture or None, silent_s, problem), waiting a moment for the first picture."""
        if not self._ending_code:
            try:
                await asyncio.wait_for(self._has_data.wait(), FIRST_PICTURE_S)
            except TimeoutError:
                return self._follower.seq, None, None, "the run is being read for the first time; ask again"
        seq, picture = await asyncio.to_thread(self._follower.payload, num_points, since)
        return seq, picture, self._follower.silent_s(), self._problem or self._follower.trouble

    # -- from the follower ---------------------------------------------------------------------------------------------

    def _take_frame(self, frame: Frame) -> None:
        self._frame = frame
        self._has_data.set()
        for viewer in self.viewers:
            viewer.offer(frame)

    def _take_reading(self, done: int, total: int) -> None:
        self._has_data.set()
        text = to_json({"type": "reading", "done": done, "total": total})
        for viewer in self.viewers:
            if viewer.takes_pulses:
                viewer.line.send(text, "reading")

    def _take_problem(self, problem: str, gone: bool) -> None:
        self._problem, self._ending_code = problem, GONE if gone else UNREADABLE
        self._has_data.set()
        self._send_pulse()
        for viewer in self.viewers:
            viewer.line.end(self._ending_code, problem[:120])
        self._on_end(self)

    def _beat(self) -> None:
        self._send_pulse()
        self._pulse = self._loop.call_later(PULSE_S, self._beat)

    def _send_pulse(self) -> None:
        message = {
            "type": "pulse",
            "seq": self._follower.seq,
            "silent_s": self._follower.silent_s(),
            "problem": self._problem or self._follower.trouble,
            "sent": time.time(),
        }
        text = to_json(message)
        for viewer in self.viewers:
            if viewer.takes_pulses:
                viewer.line.send(text, "pulse")
