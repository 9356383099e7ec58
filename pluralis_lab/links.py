"""A virtual network between workers: how long bytes take."""

import functools
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pluralis_lab.errors import RunSpecError
from pluralis_lab.markup import facts

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(kbit|mbit|gbit)", re.IGNORECASE)
_UNIT_BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_UNIT_WRITTEN = {"kbit": "kbit/s", "mbit": "Mbit/s", "gbit": "Gbit/s"}


@dataclass(frozen=True)
class Links:
    """Every pair of workers is joined by a wire of its own of this kind, with a queue for each direction.

    A message leaves when the wire is free and arrives ``bits / rate + latency`` later. So a worker that sends to seven others
    sends seven times as fast as ``rate``, unless it has an ``uplink``, as somebody's home has: then what it sends to all of them
    goes over that first, one message after the other, and each wire takes a message's bytes as they come off it. Where both are
    as fast a message takes as long as on one of them; where the wire is slower, the uplink is free for others meanwhile. What a
    worker receives is limited by the wires alone.

    Parameters
    ----------
    rate : of each pair's wire, for example "80mbit", "1gbit", "500kbit"
    latency_ms : one way, in milliseconds
    pairs : wires of another kind: (worker, worker, rate, latency_ms) each, both ways; "*" stands for all. A later one wins
    uplink : how fast each worker sends to all others together; None: as fast as its wires are together

    Raises RunSpecError for a rate or latency that is none.

    Example
    -------
    >>> pl.Links("1gbit", pairs=[("worker-3", "*", "10mbit", 80), ("worker-2", "worker-3", "1gbit", 1)])
    >>> pl.Links("80mbit", latency_ms=20, uplink="80mbit")
    """

    rate: str = "1gbit"
    latency_ms: float = 1.0
    pairs: Sequence[tuple[str, str, str, float]] = ()
    uplink: str | None = None

    def __post_init__(self) -> None:
        _check(self.rate, self.latency_ms)
        if self.uplink is not None:
            _check_rate("uplink", self.uplink)
        for pair in self.pairs:
            if len(pair) != 4 or not all(isinstance(name, str) for name in pair[:3]):
                raise RunSpecError(
                    f"pairs has {pair!r}; give (worker, worker, rate, latency_ms), e.g. ('worker-0', 'worker-3', '10mbit', 80)"
                )
            _check(pair[2], pair[3])
        object.__setattr__(self, "pairs", tuple((a, b, rate, latency) for a, b, rate, latency in self.pairs))

    @functools.cached_property
    def bits_per_s(self) -> float:
        return _bits_per_s("rate", self.rate)

    @functools.cached_property
    def uplink_bits_per_s(self) -> float:
        """What each worker sends at most; infinity without an uplink."""
        return math.inf if self.uplink is None else _bits_per_s("uplink", self.uplink)

    def seconds(self, size_bytes: int) -> float:
        """Return how long the wire is busy with `size_bytes`."""
        return size_bytes * 8 / self.bits_per_s

    def uplink_seconds(self, size_bytes: int) -> float:
        """Return how long the sender's uplink is busy with `size_bytes`; 0 without one."""
        return size_bytes * 8 / self.uplink_bits_per_s

    @property
    def latency_s(self) -> float:
        return self.latency_ms / 1000

    def between(self, a: str, b: str) -> "Links":
        """Return the link between two workers, as the links of a network where all are of that kind."""
        for first, second, rate, latency_ms in reversed(self.pairs):
            if (first in (a, "*") and second in (b, "*")) or (first in (b, "*") and second in (a, "*")):
                return Links(rate, latency_ms, uplink=self.uplink)
        return Links(self.rate, self.latency_ms, uplink=self.uplink) if self.pairs else self

    def described(self) -> str:
        """Return in words what is counted as busy: a wire for each pair, or an uplink that what a worker sends has in common."""
        wire = f"a wire of {_written(self.rate)} and {self.latency_ms:g} ms for each pair"
        others = f" ({len(self.pairs)} other{'s' * (len(self.pairs) > 1)} named)" if self.pairs else ""
        if self.uplink is None:
            return f"{wire}{others}, none shared"
        return f"an uplink of {_written(self.uplink)} for each worker, behind it {wire}{others}"

    def check_workers(self, names: Collection[str]) -> None:
        """Raise RunSpecError for a pair with a worker that is none of `names`."""
        for pair in self.pairs:
            for name in pair[:2]:
                if name != "*" and name not in names:
                    raise RunSpecError(f"links names {name!r}; the run has {', '.join(names)}")

    def _repr_html_(self) -> str:
        megabyte = f"{max(self.seconds(1_000_000), self.uplink_seconds(1_000_000)) + self.latency_s:.3g} s"
        return facts(
            "Links",
            [
                ("rate of each pair", self.rate),
                ("uplink of each worker", self.uplink or "as fast as its pairs are together"),
                ("latency", f"{self.latency_ms:g} ms one way"),
                ("a megabyte takes", megabyte),
                *((f"{a} – {b}", f"{rate}, {latency:g} ms") for a, b, rate, latency in self.pairs),
            ],
        )


def _check(rate: object, latency_ms: float) -> None:
    if not isinstance(latency_ms, int | float) or not 0 <= latency_ms < math.inf:
        raise RunSpecError(f"latency_ms={latency_ms!r} is no time that a message takes; give milliseconds, e.g. 20")
    _check_rate("rate", rate)


def _check_rate(name: str, rate: object) -> None:
    if _bits_per_s(name, rate) <= 0:
        raise RunSpecError(f"{name}={rate!r} carries nothing; give one such as '80mbit'")


def _bits_per_s(name: str, rate: object) -> float:
    number, unit = _read(name, rate)
    return float(number) * _UNIT_BITS[unit]


def _written(rate: str) -> str:
    number, unit = _read("rate", rate)
    return f"{number} {_UNIT_WRITTEN[unit]}"


def _read(name: str, rate: object) -> tuple[str, str]:
    match = _RATE.fullmatch(str(rate).strip())
    if match is None:
        raise RunSpecError(f"{name}={rate!r} is no link rate; give one such as '500kbit', '80mbit' or '1gbit'")
    return match[1], match[2].lower()
