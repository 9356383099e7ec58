"""The wire meter: real bytes by peer and kind of traffic, taken where they enter the socket."""

from collections import defaultdict


class WireMeter:
    """Counts what one worker sent, per peer, since the last `take`. Units: bytes, framing included."""

    def __init__(self) -> None:
        self._sent: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._received = 0
        self.num_messages = 0
        """Sent and received, ever: it stands still while nothing goes over the wire."""

    def sent(self, peer: str, traffic: str, size_bytes: int) -> None:
        """Book bytes sent to `peer` under "forward", "backward", "sync" or "control"."""
        self._sent[peer][traffic] += size_bytes
        self.num_messages += 1

    def received(self, size_bytes: int) -> None:
        self._received += size_bytes
        self.num_messages += 1

    def take(self) -> tuple[dict[str, dict[str, int]], int]:
        """Return ({peer: {kind_bytes: n}}, bytes received) and start anew."""
        links = {peer: {f"{kind}_bytes": size for kind, size in kinds.items()} for peer, kinds in self._sent.items()}
        received, self._received = self._received, 0
        self._sent.clear()
        return links, received


def with_bytes(report: dict[str, object], meter: WireMeter, compute_s: float) -> dict[str, object]:
    """Add to a worker's "work" report what only the engine knows: bytes on each link and seconds of arithmetic."""
    tokens = report["links"]
    assert isinstance(tokens, dict)
    sizes, received = meter.take()
    links = {peer: {**tokens.get(peer, {}), **sizes.get(peer, {})} for peer in sorted(tokens.keys() | sizes.keys())}
    return {**report, "links": links, "bytes_out": _sum(sizes), "bytes_in": received, "compute_s": compute_s}


def links_report(meter: WireMeter) -> dict[str, object] | None:
    """Return a "links" report: bytes that no "work" report will tell of, as no round is left. None when there are none."""
    sizes, received = meter.take()
    return {"links": sizes, "bytes_out": _sum(sizes), "bytes_in": received} if sizes or received else None


def _sum(sizes: dict[str, dict[str, int]]) -> int:
    return sum(size for kinds in sizes.values() for size in kinds.values())
