"""What is still to happen in a simulation, in the order of its virtual time."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Agenda:
    """A virtual clock, and what is to be done at which of its seconds; of one second, in the order in which it was put down."""

    def __init__(self) -> None:
        self.now = 0.0
        """Virtual seconds since the start: those of what is being done, or was done last."""
        self._entries: list[tuple[float, int, bool, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._num_due = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left, or only watches."""
        return self._num_due == 0

    def put(self, at_s: float, action: Callable[..., None], *arguments: Any, is_watch: bool = False) -> None:
        """Have `action` done at that time. A watch (workers look after each other) does not keep the simulation going.

        A function with its `arguments` is fewer objects for the garbage collector to look at than a closure over them.
        """
        self._num_due += not is_watch
        heapq.heappush(self._entries, (at_s, next(self._order), is_watch, action, arguments))

    def do_next(self) -> None:
        """Go on to the next moment and do what is due. Raises IndexError when nothing is left."""
        at_s, _, is_watch, action, arguments = heapq.heappop(self._entries)
        self._num_due -= not is_watch
        self.now = at_s
        action(*arguments)
