"""Whether this process stood still, so that others may have gone on without it: what came meanwhile means something else then."""

import asyncio
import math
from collections.abc import Callable

BEAT_S = 0.25
STILL_S = 1.0
"""A beat that is so late was not late: this process stood still (stopped, or its machine asleep), and may have been set aside."""


class Stillness:
    """Puts off what comes to a process that stood still, until the supervisor has answered whether it was set aside.

    ask : called once each time, to ask the supervisor
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._beat_at = math.inf
        self._held: list[Callable[[], None]] | None = None

    async def beat_forever(self) -> None:
        """Note again and again that this process runs."""
        while True:
            self._beat_at = asyncio.get_running_loop().time()
            await asyncio.sleep(BEAT_S)

    def holds(self, act: Callable[[], None]) -> bool:
        """Return whether `act` is put off: streams that were closed, a timer that is long over."""
        if self._held is None and asyncio.get_running_loop().time() - self._beat_at > STILL_S:
            self._held = []
            self._ask()
        if self._held is None:
            return False
        self._held.append(act)
        return True

    def end(self) -> list[Callable[[], None]]:
        """Return what was put off: the supervisor has answered, and would have said before that if this worker were set aside."""
        held, self._held = self._held or [], None
        self._beat_at = asyncio.get_running_loop().time()
        return held
