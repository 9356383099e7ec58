"""How micro-batches are dealt out by measured pace: alike everywhere, fair, and fast."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.learning import tasks
from pluralis_lab.worker.lanes import LEVELS_PER_OCTAVE, MAX_LEVEL, ON_TRIAL, ONE_SECOND, Lanes, deal, next_table
from pluralis_lab.worker.pace import MIN_SAMPLES, Pace

levels = st.none() | st.integers(0, MAX_LEVEL)
near = st.none() | st.integers(0, 120)


def table(*paces):
    return tuple((slot, 0, pace) for slot, pace in enumerate(paces))


def seconds(level):
    return 2 ** (level / LEVELS_PER_OCTAVE)


def makespan(counts, paces):
    return max(counts[slot] * seconds(pace) for slot, pace in enumerate(paces))


@given(paces=st.lists(levels, min_size=1, max_size=16), count=st.integers(1, 128), round_=st.integers(0, 99))
def test_each_micro_batch_is_dealt_whatever_the_paces(paces, count, round_):
    dealt = deal(table(*paces), count, round_)
    assert len(dealt) == count
    assert set(dealt) <= set(range(len(paces)))


@given(paces=st.lists(st.integers(0, 120), min_size=1, max_size=8), count=st.integers(1, 64))
def test_no_other_dealing_is_a_fifth_faster(paces, count):
    counts = Counter(deal(table(*paces), count, 0))
    each_s = [seconds(pace) for pace in paces]
    ends = [number * one_s for one_s in each_s for number in range(1, count + 1)]
    least = min(end for end in ends if sum(math.floor(end / one_s + 1e-9) for one_s in each_s) >= count)
    assert makespan(counts, paces) <= 1.25 * least


@given(pace=st.integers(0, 120), size=st.integers(1, 8), each=st.integers(1, 5), round_=st.integers(0, 99))
def test_equal_machines_get_equal_turns_measured_or_not(pace, size, each, round_):
    turns = tuple(range(size)) * each
    assert deal(table(*[None] * size), size * each, round_) == turns
    assert deal(table(*[pace] * size), size * each, round_) == turns


@pytest.mark.parametrize(
    ("speeds", "count", "expected"),
    [
        ((1, 1, 0.5, 0.25), 16, {0: 6, 1: 6, 2: 3, 3: 1}),
        ((1, 0.5), 8, {0: 6, 1: 2}),
        ((1, 0.8), 8, {0: 4, 1: 4}),  # not worth it
        ((1, 0.01), 4, {0: 4}),
    ],
)
def test_who_is_half_as_fast_gets_half(speeds, count, expected):
    paces = [round(ONE_SECOND - LEVELS_PER_OCTAVE * math.log2(speed)) for speed in speeds]
    assert Counter(deal(table(*paces), count, 0)) == expected


@pytest.mark.parametrize(("size", "count"), [(2, 8), (3, 4), (2, 2)])
def test_who_is_on_trial_gets_one(size, count):
    counts = Counter(deal(table(*[None] * (size - 1), ON_TRIAL), count, 3))
    assert counts[size - 1] == 1
    assert sum(counts.values()) == count


def test_on_trial_the_others_come_first():
    assert deal(table(None, ON_TRIAL), 1, 0) == (0,)
    assert Counter(deal(table(ON_TRIAL, ON_TRIAL), 4, 0)) == {0: 2, 1: 2}


def test_what_does_not_divide_goes_to_another_one_every_round():
    counts = Counter(slot for round_ in range(30) for slot in deal(table(None, None, None), 4, round_))
    assert set(counts.values()) == {40}


def test_lanes_are_those_of_the_last_change_before_the_round_and_turns_begin_with_the_lane():
    lanes = Lanes(1, 4, [(0, table(None, None))])
    lanes.change(7, ((0, 0, None), (1, 0, None), (5, 7, None)), keep=3)
    assert [slot for slot, *_ in lanes.of(6)] == [0, 1]
    assert [slot for slot, *_ in lanes.of(7)] == [0, 1, 5]
    assert lanes.turns(6, 0) == [0, 1]  # stage 1: it moves on by one every round
    assert lanes.turns(5, 0) == [1, 0]
    for round_ in (8, 9, 10):
        lanes.change(round_, ((0, 0, round_),), keep=3)
    assert [since for since, _ in lanes.tables] == [8, 9, 10]
    assert lanes.of(0) == ((0, 0, 8),)
    lanes.change(11, (), keep=3)  # of nobody: that is no news
    assert lanes.of(11) == ((0, 0, 10),)


# --- after a step ------------------------------------------------------------------------------------------------------


def after(lanes, round_=4, *, paces=None, dealt=(), joined=(), on_trial=(), is_head=True):
    what = {
        "paces": paces or {},
        "dealt": set(dealt),
        "joined": {slot: slot in on_trial for slot in (*joined, *on_trial)},
        "is_head": is_head,
    }
    return next_table(lanes, round_, since=round_ + 3, **what)


def test_paces_are_taken_and_a_slot_whose_work_is_missing_is_no_lane_any_more():
    assert after(table(None, 8), paces={0: 3}, dealt={0, 1}) == ((0, 0, 3),)
    assert after(table(None, 8), paces={0: 3}, dealt={0, 1}, is_head=False) == table(3, 8)


def test_a_slot_that_was_dealt_nothing_stays_and_drifts_to_the_pace_of_the_others():
    lanes = table(0, 40)
    for _ in range(15):
        lanes = after(lanes, paces={0: 0}, dealt={0})
    assert lanes == table(0, 25)
    assert after(table(0, None), paces={0: 0}, dealt={0}) == table(0, None)
    assert after(table(0, 9), paces={0: None}, dealt={0}) == table(None, 9)


def test_who_joins_is_a_lane_from_the_first_round_that_nobody_has_begun_also_in_the_slot_of_a_dead_one():
    assert after(table(0), paces={0: 0}, dealt={0}, joined=[3]) == ((0, 0, 0), (3, 7, None))
    again = after(table(0, 5), paces={0: 0}, dealt={0, 1}, joined=[1])
    assert again == ((0, 0, 0), (1, 7, None))
    # Until then its slot is dealt to by older tables, and others do that work: it stays.
    assert after(again, 5, paces={0: 0}, dealt={0, 1}) == again
    assert after(again, 7, paces={0: 0}, dealt={0, 1}) == ((0, 0, 0),)


def test_a_trial_lasts_until_its_work_is_in_a_step():
    lanes = after(table(0, 5), round_=4, paces={0: 0}, dealt={0, 1}, on_trial=[1])
    assert lanes == ((0, 0, 0), (1, 7, ON_TRIAL))
    assert after(lanes, round_=6, paces={0: 0}, dealt={0}) == lanes, "it has not begun"
    assert after(lanes, round_=7, paces={0: 0, 1: 9}, dealt={0, 1}) == ((0, 0, 0), (1, 7, 9))
    assert after(lanes, round_=7, paces={0: 0}, dealt={0}) == ((0, 0, 0), (1, 7, None)), "there was nothing to try it with"
    assert after(lanes, round_=7, paces={0: 0}, dealt={0, 1}) == ((0, 0, 0),), "it is gone again"
    assert after(lanes, round_=7, paces={0: 0}, dealt={0, 1}, is_head=False) == lanes


@given(
    lanes=st.lists(near, min_size=1, max_size=6).map(lambda paces: table(*paces)),
    paces=st.dictionaries(st.integers(0, 5), near),
    dealt=st.sets(st.integers(0, 5)),
    joined=st.lists(st.integers(0, 9), unique=True),
    on_trial=st.lists(st.integers(0, 9), unique=True),
)
def test_lanes_stay_in_order_each_slot_once(lanes, paces, dealt, joined, on_trial):
    found = [slot for slot, *_ in after(lanes, paces=paces, dealt=dealt, joined=joined, on_trial=on_trial)]
    assert found == sorted(set(found))
    assert {*joined, *on_trial} <= set(found)


# --- the own pace ------------------------------------------------------------------------------------------------------


def rounds(pace, *costs, each=2):
    """Tell `pace` of rounds of `each` micro-batches that took so many seconds each, and return what it says after each."""
    said = []
    for cost in costs:
        for _ in range(each):
            pace.take(tasks.Forward(0, 0, None), cost / 3)
            pace.take(tasks.EndInference("a", 1), 99.0)  # not training
            pace.take(tasks.Backward(0, 0, None), cost * 2 / 3)  # type: ignore[arg-type]
            pace.count()
        said.append(pace.level())
    return said


def test_the_pace_is_the_median_of_the_last_rounds_and_unknown_at_first():
    assert rounds(Pace(), *[1.0] * 4)[: MIN_SAMPLES - 1] == [None] * (MIN_SAMPLES - 1)
    assert rounds(Pace(), 9.0, 1.0, 1.0, 1.0, 7.0, 1.0)[-1] == ONE_SECOND
    assert rounds(Pace(), *[2.0] * 3)[-1] == ONE_SECOND + LEVELS_PER_OCTAVE
    assert rounds(Pace(), *[1e-30] * 3)[-1] == 0


def test_a_figure_between_two_levels_does_not_flicker():
    exact = 2 ** (0.5 / LEVELS_PER_OCTAVE)
    costs = [exact * (1 + 1e-3 * (-1) ** n) for n in range(20)]
    assert len(set(rounds(Pace(), *costs)[MIN_SAMPLES - 1 :])) == 1


def test_asking_again_without_work_changes_nothing():
    pace = Pace()
    assert rounds(pace, 1.0, 1.0, 1.0)[-1] == ONE_SECOND
    assert [pace.level() for _ in range(9)] == [ONE_SECOND] * 9
