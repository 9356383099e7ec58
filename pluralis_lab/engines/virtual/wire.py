"""The way from one worker to another: what is sent there leaves one after the other, and arrives a latency later."""

from pluralis_lab.links import Links


class Wire:
    """One direction of a virtual link (algorithms.md, "A virtual link")."""

    def __init__(self, link: Links) -> None:
        self._link = link
        self.latency_s = link.latency_s
        self._free_at = 0.0

    def occupy(self, size_bytes: int, now: float) -> float:
        """Put so many bytes on the wire behind what is on it, and return when they have left."""
        self._free_at = max(now, self._free_at) + self._link.seconds(size_bytes)
        return self._free_at

    def arrives(self, size_bytes: int, now: float) -> float:
        """Put so many bytes on the wire, and return when they are at its other end."""
        return self.occupy(size_bytes, now) + self.latency_s

    def is_through_in(self, now: float) -> float:
        """Return in how many seconds what was sent last is at the other end."""
        return max(self._free_at - now, 0.0) + self.latency_s
