"""A virtual link between two workers: how long bytes take."""

import functools
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pluralis_lab.errors import RunSpecError
from pluralis_lab.markup import facts

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(kbit|mbit|gbit)", re.IGNORECASE)
_UNIT_BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


@dataclass(frozen=True)
class Links:
    """Every pair of workers is joined by one link of this kind, with a queue for each direction.

    A message leaves when the wire is free and arrives ``bits / rate + latency`` later.

    Parameters
    ----------
    rate : for example "80mbit", "1gbit", "500kbit"
    latency_ms : one way, in milliseconds
    pairs : links of another kind: (worker, worker, rate, latency_ms) each, both ways; "*" stands for all. A later one wins

    Raises RunSpecError for a rate or latency that is none.

    Example
    -------
    >>> pl.Links("1gbit", pairs=[("worker-3", "*", "10mbit", 80), ("worker-2", "worker-3", "1gbit", 1)])
    """

    rate: str = "1gbit"
    latency_ms: float = 1.0
    pairs: Sequence[tuple[str, str, str, float]] = ()

    def __post_init__(self) -> None:
        _check(self.rate, self.latency_ms)
        for pair in self.pairs:
            if len(pair) != 4 or not all(isinstance(name, str) for name in pair[:3]):
                raise RunSpecError(
                    f"pairs has {pair!r}; give (worker, worker, rate, latency_ms), e.g. ('worker-0', 'worker-3', '10mbit', 80)"
                )
            _check(pair[2], pair[3])
        object.__setattr__(self, "pairs", tuple((a, b, rate, latency) for a, b, rate, latency in self.pairs))

    @functools.cached_property
    def bits_per_s(self) -> float:
        return _bits_per_s(self.rate)

    def seconds(self, size_bytes: int) -> float:
        """Return how long the wire is busy with `size_bytes`."""
        return size_bytes * 8 / self.bits_per_s

    @property
    def latency_s(self) -> float:
        return self.latency_ms / 1000

    def between(self, a: str, b: str) -> "Links":
        """Return the link between two workers, as the links of a network where all are of that kind."""
        for first, second, rate, latency_ms in reversed(self.pairs):
            if (first in (a, "*") and second in (b, "*")) or (first in (b, "*") and second in (a, "*")):
                return Links(rate, latency_ms)
        return Links(self.rate, self.latency_ms) if self.pairs else self

    def check_workers(self, names: Collection[str]) -> None:
        """Raise RunSpecError for a pair with a worker that is none of `names`."""
        for pair in self.pairs:
            for name in pair[:2]:
                if name != "*" and name not in names:
                    raise RunSpecError(f"links names {name!r}; the run has {', '.join(names)}")

    def _repr_html_(self) -> str:
        megabyte = f"{self.seconds(1_000_000) + self.latency_s:.3g} s"
        return facts(
            "Links",
            [
                ("rate", self.rate),
                ("latency", f"{self.latency_ms:g} ms one way"),
                ("a megabyte takes", megabyte),
                *((f"{a} – {b}", f"{rate}, {latency:g} ms") for a, b, rate, latency in self.pairs),
            ],
        )


def _check(rate: object, latency_ms: float) -> None:
    if not isinstance(latency_ms, int | float) or not 0 <= latency_ms < math.inf:
        raise RunSpecError(f"latency_ms={latency_ms!r} is no time that a message takes; give milliseconds, e.g. 20")
    if _bits_per_s(rate) <= 0:
        raise RunSpecError(f"rate={rate!r} carries nothing; give one such as '80mbit'")


def _bits_per_s(rate: object) -> float:
    match = _RATE.fullmatch(str(rate).strip())
    if match is None:
        raise RunSpecError(f"rate={rate!r} is no link rate; give one such as '500kbit', '80mbit' or '1gbit'")
    return float(match[1]) * _UNIT_BITS[match[2].lower()]
