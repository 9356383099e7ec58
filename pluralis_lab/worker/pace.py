"""How long this worker takes for a micro-batch, as it tells its replicas."""

import math
from collections import deque

from pluralis_lab.learning import tasks
from pluralis_lab.worker.lanes import LEVELS_PER_OCTAVE, MAX_LEVEL, ONE_SECOND

SAMPLES = 5
"""Rounds that the median is taken over: one that was disturbed, as the first one is, does not count."""
MIN_SAMPLES = 3
SLACK_LEVELS = 0.75
"""A level is given up when the measured one is so far from it: a figure between two levels does not flicker."""


class Pace:
    """The median seconds a micro-batch, forward and backward, over the last rounds."""

    def __init__(self) -> None:
        self._seconds, self._done = 0.0, 0
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._level: int | None = None

    def take(self, task: tasks.Task, seconds: float) -> None:
        """Note how long `task` took."""
        if isinstance(task, tasks.Forward | tasks.Backward):
            self._seconds += seconds

    def count(self) -> None:
        """Note that a micro-batch is done."""
        self._done += 1

    def level(self) -> int | None:
        """Return the level of the pace (`lanes.LEVELS_PER_OCTAVE`) with what was done since it was asked last; None at first."""
        if self._done and self._seconds > 0:
            self._samples.append(self._seconds / self._done)
            self._seconds, self._done = 0.0, 0
        if len(self._samples) >= MIN_SAMPLES:
            exact = ONE_SECOND + LEVELS_PER_OCTAVE * math.log2(sorted(self._samples)[len(self._samples) // 2])
            exact = max(0.0, min(MAX_LEVEL, exact))
            if self._level is None or abs(exact - self._level) > SLACK_LEVELS:
                self._level = round(exact)
        return self._level
