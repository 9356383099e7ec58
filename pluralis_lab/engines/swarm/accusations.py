"""Who elsewhere says again and again that workers of this machine cannot be reached: it is that one which cannot reach them.

Whoever gives a worker up tells the others, who go on without it; so the worker has to start anew, even where it was well. That is
right for a broken link. But a machine behind a firewall that lets it reach nobody would end one worker after the other.
"""

from collections import defaultdict, deque

MOST = 2
WITHIN_S = 600.0


class Accusations:
    """Counts, for each worker elsewhere, how often it gave up a worker of this machine that was alive."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST + 1))

    def are_too_many(self, by: str, now: float) -> bool:
        """Note that `by` has given up a live worker, and say whether it is `by` who has to go."""
        times = self._times[by]
        times.append(now)
        return len(times) > MOST and now - times[0] <= WITHIN_S

    def forget(self, by: str) -> None:
        """Begin with a clean slate for whoever comes as `by` next."""
        self._times.pop(by, None)
