"""A curve over rounds that grows at its end, forgives disorder, and can be thinned without losing its extremes."""

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass
class Series:
    """Values over rounds, in the order of the rounds; a value for a known round replaces the old one.

    A resumed run repeats the rounds since its last checkpoint, which is why the latest value wins.
    """

    x: list[int] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    changes: int = field(default=0, repr=False, compare=False)
    """How often the series has changed, so that what was made from it can be kept until it does."""
    made: tuple[int, int, dict[str, Any]] | None = field(default=None, repr=False, compare=False)
    """(changes, points, curve) of the payload made last."""

    def put(self, x: int, y: float) -> float | None:
        """Set the value of round `x`; returns the value that it replaced, or None."""
        self.changes += 1
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

        `num_points` is at least 4. Every extreme survives, so that a spike of one round stays visible. Buckets span the same
        number of rounds, whatever was thinned before, so that no part of a curve looks finer than another.
        """
        if num_points < 4:
            raise ValueError(f"num_points={num_points}: a thinned curve needs at least 4 points")
        size = len(self.x)
        if size <= num_points:
            return list(self.x), list(self.y)
        num_buckets = (num_points - 2) // 2
        first, span = self.x[1], self.x[-2] + 1 - self.x[1]
        keep, start = [0], 1
        for bucket in range(num_buckets):
            # The last round of a bucket, in whole numbers: `x < first + (bucket + 1) * span / num_buckets`.
            stop = bisect_left(self.x, first + -(-(bucket + 1) * span // num_buckets), start, size - 1)
            if start == stop:
                continue
            part = self.y[start:stop]
            low, high = start + part.index(min(part)), start + part.index(max(part))
            keep += [low] if low == high else sorted((low, high))
            start = stop
        keep.append(size - 1)
        return [self.x[i] for i in keep], [self.y[i] for i in keep]


class BoundedSeries(Series):
    """A series that keeps at most `limit` points, however long the run, and never loses an extreme.

    The newest half is exact. Older points are thinned, as `Series.thinned` does: the minimum and the maximum of each bucket
    stay. Their buckets all span the same number of rounds, so that a curve does not get coarser towards its beginning.
    A value that replaces one which was thinned away cannot be told from a new one; `put` then says that nothing changed.
    """

    def __init__(self, limit: int) -> None:
        if limit < 16:
            raise ValueError(f"limit={limit}: a bounded curve needs at least 16 points")
        super().__init__()
        self._set(array("q"), array("d"))
        self.limit = limit
        self._exact_from: int | None = None

    def put(self, x: int, y: float) -> float | None:
        """Set the value of round `x`; returns the value that it replaced (`y` where that is forgotten), or None."""
        is_old = self._exact_from is not None and x < self._exact_from
        replaced = super().put(x, y)
        if len(self.x) > self.limit:
            self._thin()
        return y if is_old and replaced is None else replaced

    def _thin(self) -> None:
        keep = self.limit // 2
        old_x, old_y = self.x[:-keep], self.y[:-keep]
        num_buckets = max(1, self.limit // 8)
        width = max(1, -(-(old_x[-1] - old_x[0] + 1) // num_buckets))
        kept: list[int] = []
        start = 0
        while start < len(old_x):
            stop = bisect_left(old_x, old_x[0] + ((old_x[start] - old_x[0]) // width + 1) * width, start)
            part = old_y[start:stop]
            low, high = start + part.index(min(part)), start + part.index(max(part))
            kept += sorted({low, high})
            start = stop
        if kept[0] != 0:
            kept.insert(0, 0)
        self._exact_from = self.x[-keep]
        x, y = [old_x[i] for i in kept] + list(self.x[-keep:]), [old_y[i] for i in kept] + list(self.y[-keep:])
        self._set(array("q", x), array("d", y))

    def _set(self, x: "array[int]", y: "array[float]") -> None:
        """Keep the points as arrays, which take a quarter of what lists of numbers do and answer the same questions."""
        self.x, self.y = cast(list[int], x), cast(list[float], y)
