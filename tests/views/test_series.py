"""Curves: disorder, replacement, and thinning that keeps extremes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.views.series import Series


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(-1e6, 1e6)), max_size=80))
def test_a_series_is_the_latest_value_of_each_round_in_order(points: list[tuple[int, float]]) -> None:
    series = Series()
    for x, y in points:
        series.put(x, y)
    expected = sorted(dict(points).items())
    assert list(zip(series.x, series.y, strict=True)) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_the_ends_and_the_extremes_in_order(values: list[float], num_points: int) -> None:
    series = Series(list(range(len(values))), values)
    x, y = series.thinned(num_points)
    assert len(x) <= num_points or len(x) == len(values)
    assert len(x) <= max(num_points, 4)
    assert (x[0], x[-1]) == (0, len(values) - 1)
    assert x == sorted(set(x))
    assert (min(y), max(y)) == (min(values), max(values))
    assert all(values[i] == value for i, value in zip(x, y, strict=True))


def test_a_spike_of_one_round_in_100000_stays_visible() -> None:
    values = [random.Random(1).random()] * 100_000
    values[77_777] = 9.0
    x, y = Series(list(range(100_000)), values).thinned(100)
    assert 77_777 in x
    assert max(y) == 9.0


def test_fewer_than_four_points_are_refused() -> None:
    with pytest.raises(ValueError, match="num_points=3"):
        Series([1], [1.0]).thinned(3)
