"""The order in which a worker's arithmetic is done."""

from collections import deque

from pluralis_lab.learning import tasks


class TaskQueue:
    """First come, first served; but under ``schedule="async"`` forward passes come after everything else.

    What has come back is then finished before something new is begun (1F1B, PipeDream, arXiv 1806.03377): gradients are
    younger, and less is under way. Under `sync` the next stage must not be kept waiting for the first of its work.
    """

    def __init__(self, *, forwards_last: bool) -> None:
        self._forwards_last = forwards_last
        self._first: deque[tasks.Task] = deque()
        self._last: deque[tasks.Task] = deque()

    def __len__(self) -> int:
        return len(self._first) + len(self._last)

    def put(self, task: tasks.Task) -> None:
        """Add `task`."""
        (self._last if self._forwards_last and isinstance(task, tasks.Forward) else self._first).append(task)

    def take(self) -> tasks.Task:
        """Remove and return the task to do next. Raises IndexError when there is none."""
        return (self._first or self._last).popleft()

    @property
    def upcoming(self) -> tasks.Task | None:
        """The task that `take` would return now; None when there is none."""
        waiting = self._first or self._last
        return waiting[0] if waiting else None
