"""A curve over rounds that grows at its end, forgives disorder, and can be thinned without losing its extremes."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field


@dataclass
class Series:
    """Values over rounds, in the order of the rounds; a value for a known round replaces the old one.

    A resumed run repeats the rounds since its last checkpoint, which is why the latest value wins.
    """

    x: list[int] = field(default_factory=list)
    y: list[float] = field(default_factory=list)

    def put(self, x: int, y: float) -> float | None:
        """Set the value of round `x`; returns the value that it replaced, or None."""
        if not self.x or x > self.x[-1]:
            self.x.append(x)
            self.y.append(y)
            return None
        place = bisect_left(self.x, x)
        if self.x[place] == x:
            old, self.y[place] = self.y[place], y
            return old
        self.x.insert(place, x)
        self.y.insert(place, y)
        return None

    @property
    def last(self) -> float | None:
        return self.y[-1] if self.y else None

    def mean(self, window: int | None = None) -> float | None:
        """Return the mean of the last `window` values (all if None), or None when there are none."""
        values = self.y if window is None else self.y[-window:]
        return math.fsum(values) / len(values) if values else None

    def thinned(self, num_points: int) -> tuple[list[int], list[float]]:
        """Return at most `num_points` points: the ends, and the minimum and maximum of every bucket between them.

        `num_points` is at least 4. Every extreme survives, so that a spike of one round stays visible.
        """
        if num_points < 4:
            raise ValueError(f"num_points={num_points}: a thinned curve needs at least 4 points")
        size = len(self.x)
        if size <= num_points:
            return list(self.x), list(self.y)
        num_buckets = (num_points - 2) // 2
        keep = [0]
        inner = size - 2
        for bucket in range(num_buckets):
            start, stop = 1 + bucket * inner // num_buckets, 1 + (bucket + 1) * inner // num_buckets
            part = self.y[start:stop]
            low, high = start + part.index(min(part)), start + part.index(max(part))
            keep += [low] if low == high else sorted((low, high))
        keep.append(size - 1)
        return [self.x[i] for i in keep], [self.y[i] for i in keep]
