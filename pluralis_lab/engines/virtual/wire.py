"""The way from one worker to another: what is sent there leaves one after the other, and arrives a latency later."""

from pluralis_lab.links import Links


class Uplink:
    """What all that one worker sends goes over first, one message after the other; without a rate it holds nothing up."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._free_at = 0.0

    def occupy(self, size_bytes: int, now: float) -> tuple[float, float]:
        """Put so many bytes on the uplink behind what is on it, and return when the first and when the last of them leave it."""
        begins = max(now, self._free_at)
        self._free_at = begins + self._links.uplink_seconds(size_bytes)
        return begins, self._free_at


class Wire:
    """One direction of a virtual link (algorithms.md, "A virtual link"), behind its sender's uplink.

    It takes a message's bytes as they come off the uplink, so the slower of the two decides and nothing takes its time twice.
    """

    def __init__(self, link: Links, uplink: Uplink) -> None:
        self._link, self._uplink = link, uplink
        self.latency_s = link.latency_s
        self._free_at = 0.0

    def occupy(self, size_bytes: int, now: float) -> float:
        """Put so many bytes on the way behind what is on it, and return when they have left."""
        begin, end = self._uplink.occupy(size_bytes, now)
        self._free_at = max(max(begin, self._free_at) + self._link.seconds(size_bytes), end)
        return self._free_at

    def arrives(self, size_bytes: int, now: float) -> float:
        """Put so many bytes on the way, and return when they are at its other end."""
        return self.occupy(size_bytes, now) + self.latency_s

    def is_through_in(self, now: float) -> float:
        """Return in how many seconds what was sent last is at the other end."""
        return max(self._free_at - now, 0.0) + self.latency_s
