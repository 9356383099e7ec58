"""A process that stood still asks before it acts on what came meanwhile. The event loop is real, and is really held up."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from pluralis_lab.engines.swarm.stillness import STILL_S, Stillness


def held_up(check: Callable[[Stillness, list[str]], object], *, for_s: float) -> None:
    """Call `check` with what says whether its process stood still, in one that did for so long, and with what it asked."""

    async def main() -> None:
        asked: list[str] = []
        stillness = Stillness(partial(asked.append, "awake"))
        beating = asyncio.create_task(stillness.beat_forever())
        await asyncio.sleep(0)  # the first beat
        time.sleep(for_s)  # noqa: ASYNC251 - nothing else runs meanwhile, which is what is tested
        check(stillness, asked)
        beating.cancel()

    asyncio.run(main())


def test_who_runs_puts_nothing_off() -> None:
    def check(stillness: Stillness, asked: list[str]) -> None:
        assert not stillness.holds(lambda: None)
        assert (asked, stillness.end()) == ([], [])

    held_up(check, for_s=0.0)


def test_who_stood_still_asks_once_and_puts_all_off_until_it_is_answered() -> None:
    def check(stillness: Stillness, asked: list[str]) -> None:
        done: list[str] = []
        assert all(stillness.holds(partial(done.append, name)) for name in ("message", "loss", "timer"))
        assert (asked, done) == (["awake"], [])
        for act in stillness.end():
            act()
        assert done == ["message", "loss", "timer"]
        assert not stillness.holds(lambda: None), "an answered question is asked again"
        assert asked == ["awake"]

    held_up(check, for_s=STILL_S + 0.1)
