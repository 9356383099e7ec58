"""One viewer of a live run: what it was sent, whether it has drawn it, whether anybody looks."""

from typing import Protocol

from pluralis_lab.server.live.frame import Frame


class Line(Protocol):
    """The way to a viewer: a socket."""

    def send(self, text: bytes, kind: str) -> None:
        """Send a message."""
        ...

    @property
    def is_clogged(self) -> bool:
        """Whether what was sent last has not left this process yet."""
        ...

    def end(self, code: int, reason: str) -> None:
        """Close the way."""
        ...


class Viewer:
    """Decides what a viewer gets. At most one picture is under way to it: the next goes out once it says that it drew the last.

    Parameters
    ----------
    line : how to reach it
    since : it has the picture up to this `seq` already; -1: it has none
    """

    def __init__(self, line: Line, since: int = -1) -> None:
        self.line = line
        self._since = since
        self._sent_number = 0
        self._sent_seq = -1
        self._is_waiting = False
        self._is_visible = True
        self._knows_the_end = False

    @property
    def takes_pictures(self) -> bool:
        """Whether a new picture would be sent at once."""
        return self._is_visible and not self._is_waiting

    @property
    def takes_pulses(self) -> bool:
        """Whether it wants to know that the server is there; one that does not read is not sent more and more of them."""
        return self._is_visible and not self.line.is_clogged

    def offer(self, frame: Frame | None) -> None:
        """Send `frame` if this viewer is to have it now; the caller keeps it for later."""
        if frame is None or frame.number <= self._sent_number or frame.seq <= self._since or self._is_waiting:
            return
        is_the_end = frame.over and not self._knows_the_end
        if not (self._is_visible or is_the_end):
            return
        self._knows_the_end = frame.over
        self._since = -1
        self._sent_number, self._sent_seq, self._is_waiting = frame.number, frame.seq, True
        self.line.send(frame.text, "picture")

    def acknowledge(self, seq: int, frame: Frame | None) -> None:
        """Take note that the picture `seq` is drawn; what came since goes out as one picture."""
        if seq >= self._sent_seq:
            self._is_waiting = False
            self.offer(frame)

    def set_visible(self, visible: bool, frame: Frame | None) -> None:
        """Go on standby, or come back to the newest picture."""
        self._is_visible = visible
        self.offer(frame)
