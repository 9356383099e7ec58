"""Wires and the uplink before them: the slower decides, nothing takes its time twice, and a wire alone is what it was."""

import math

import pytest

from pluralis_lab.engines.virtual.wire import Uplink, Wire
from pluralis_lab.links import Links

MEGABIT = 125_000
"""Bytes that take a second at 1 Mbit/s."""


def wires(links: Links, count: int = 2) -> list[Wire]:
    """Return the wires from one worker to `count` others."""
    uplink = Uplink(links)
    return [Wire(links.between("worker-0", f"worker-{number + 1}"), uplink) for number in range(count)]


def test_wires_of_their_own_carry_at_the_same_time() -> None:
    first, second = wires(Links("1mbit", latency_ms=100))
    assert [first.arrives(MEGABIT, 5.0), second.arrives(MEGABIT, 5.0), first.arrives(MEGABIT, 5.0)] == [6.1, 6.1, 7.1]


@pytest.mark.parametrize("rate", ["1mbit", "1gbit"])
def test_what_goes_to_all_goes_over_the_uplink_one_after_the_other(rate: str) -> None:
    many = wires(Links(rate, latency_ms=100, uplink="1mbit"), 7)
    assert [wire.arrives(MEGABIT, 2.0) for wire in many] == pytest.approx([3.1 + number for number in range(7)])
    assert many[0].arrives(MEGABIT, 100.0) == pytest.approx(101.1), "an uplink as fast as the wire takes its time again"


def test_a_wire_slower_than_the_uplink_decides_and_holds_nobody_else_up() -> None:
    links = Links("4mbit", latency_ms=0, pairs=[("worker-0", "worker-1", "1mbit", 0)], uplink="4mbit")
    slow, fast = wires(links)
    assert slow.arrives(4 * MEGABIT, 0.0) == pytest.approx(4.0)
    assert fast.arrives(4 * MEGABIT, 0.0) == pytest.approx(2.0), "behind the first on the uplink alone"
    assert slow.arrives(MEGABIT, 0.0) == pytest.approx(5.0), "behind the first on its wire"
    assert slow.is_through_in(1.0) == pytest.approx(4.0)


def test_a_small_message_is_behind_what_was_sent_and_before_what_still_waits() -> None:
    """A large message that may wait is put on piece by piece: the next only when the one before has left."""
    large, small = wires(Links("1gbit", latency_ms=0, uplink="1mbit"))
    left = large.occupy(MEGABIT, 0.0)
    assert small.arrives(MEGABIT // 100, 0.5) == pytest.approx(1.01)
    assert large.occupy(MEGABIT, left) == pytest.approx(2.01)


def test_without_an_uplink_nothing_is_added_to_the_bit() -> None:
    wire, free_at = wires(Links("3mbit", latency_ms=7), 1)[0], 0.0
    for number in range(1, 100):
        now, size = math.sqrt(number) / 10, number * 7919
        free_at = max(now, free_at) + size * 8 / 3e6
        assert wire.arrives(size, now) == free_at + 0.007
