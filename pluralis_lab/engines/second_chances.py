"""How long a worker that was set aside waits before it is tried again: longer each time."""

FORGIVEN_AFTER = 10.0
"""Who has been back for so many times as long as it was silent begins with a clean slate."""

MOST_DOUBLINGS = 10


class SecondChances:
    """Counts how often each worker was set aside.

    The first time it is tried again as soon as it answers; then it waits once, three, seven times as long as it was silent.
    """

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._forgiven_at: dict[str, float] = {}

    def wait_s(self, worker: str, silent_s: float, now: float) -> float:
        """Return the seconds that `worker` has to wait, who is set aside `now` after it was silent for so many."""
        if now >= self._forgiven_at.get(worker, now):
            self._times[worker] = 0
        times = self._times[worker] = self._times[worker] + 1
        wait_s = silent_s * float(2 ** min(times - 1, MOST_DOUBLINGS) - 1)
        self._forgiven_at[worker] = now + wait_s + FORGIVEN_AFTER * silent_s
        return wait_s
