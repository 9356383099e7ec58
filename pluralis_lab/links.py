"""A virtual link between two workers: how long bytes take."""

import math
import re
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

    Raises RunSpecError for a rate or latency that is none.
    """

    rate: str = "1gbit"
    latency_ms: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.latency_ms < math.inf:
            raise RunSpecError(f"latency_ms={self.latency_ms} is no time that a message takes; give milliseconds, e.g. 20")
        if self.bits_per_s <= 0:
            raise RunSpecError(f"rate={self.rate!r} carries nothing; give one such as '80mbit'")

    @property
    def bits_per_s(self) -> float:
        match = _RATE.fullmatch(str(self.rate).strip())
        if match is None:
            raise RunSpecError(f"rate={self.rate!r} is no link rate; give one such as '500kbit', '80mbit' or '1gbit'")
        return float(match[1]) * _UNIT_BITS[match[2].lower()]

    def seconds(self, size_bytes: int) -> float:
        """Return how long the wire is busy with `size_bytes`."""
        return size_bytes * 8 / self.bits_per_s

    @property
    def latency_s(self) -> float:
        return self.latency_ms / 1000

    def _repr_html_(self) -> str:
        megabyte = f"{self.seconds(1_000_000) + self.latency_s:.3g} s"
        return facts(
            "Links", [("rate", self.rate), ("latency", f"{self.latency_ms:g} ms one way"), ("a megabyte takes", megabyte)]
        )
