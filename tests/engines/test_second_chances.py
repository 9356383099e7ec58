"""Who is silent again and again waits longer each time, and not for ever."""

from pluralis_lab.engines.second_chances import FORGIVEN_AFTER, SecondChances


def test_the_wait_grows_with_each_time_and_starts_anew_for_who_was_good_for_long():
    chances = SecondChances()
    now, waits = 100.0, []
    for _ in range(4):
        waits.append(chances.wait_s("worker-1", 5.0, now))
        now += waits[-1] + 5.0
    assert waits == [0.0, 5.0, 15.0, 35.0]
    assert chances.wait_s("worker-2", 5.0, now) == 0.0, "what another one did is not its fault"
    now += FORGIVEN_AFTER * 5.0
    assert chances.wait_s("worker-1", 5.0, now) == 0.0


def test_however_often_the_wait_is_a_number():
    chances = SecondChances()
    assert max(chances.wait_s("worker-1", 5.0, 0.0) for _ in range(5000)) < 10_000
