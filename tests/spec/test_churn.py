"""Who is away when: what is drawn leaves every stage somebody, and nonsense is refused."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralis_lab.churn import Absence, Churn
from pluralis_lab.errors import RunSpecError
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec


def spec_of(stages: int, replicas: int) -> RunSpec:
    return RunSpec(model=GPT(n_layer=6, n_head=2, d_model=16, context=16), stages=stages, replicas=replicas, micro_batches=2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 12), st.integers(0, 99))
def test_a_drawn_churn_never_empties_a_stage(stages: int, replicas: int, deaths: int, seed: int) -> None:
    spec = spec_of(stages, replicas)
    churn = Churn.drawn(spec, deaths=deaths, within_s=500, for_s=5, seed=seed)
    assert len(churn.absences) == deaths
    assert churn == Churn.drawn(spec, deaths=deaths, within_s=500, for_s=5, seed=seed)
    for now in [absence.at_s for absence in churn.absences]:
        away = {one.worker for one in churn.absences if one.at_s <= now < one.at_s + 2 * 5}
        for stage in range(stages):
            assert any(f"worker-{stage * replicas + replica}" not in away for replica in range(replicas))


def test_more_deaths_than_fit_are_refused_with_the_remedy() -> None:
    with pytest.raises(RunSpecError, match="would empty a stage; draw fewer"):
        Churn.drawn(spec_of(2, 1), deaths=1, within_s=100, for_s=5)
    with pytest.raises(RunSpecError, match="over a longer time"):
        Churn.drawn(spec_of(1, 2), deaths=50, within_s=10, for_s=5)


def test_absences_are_in_order_whatever_the_order_they_are_given_in() -> None:
    early, late = Absence("worker-1", 3), Absence("worker-0", 9, 2)
    assert Churn([late, early]) == Churn((early, late))


@pytest.mark.parametrize(("at_s", "for_s"), [(-1, 1), (math.nan, 1), (math.inf, 1), (1, 0), (1, -2), (1, math.inf)])
def test_times_that_are_none_are_refused(at_s: float, for_s: float) -> None:
    with pytest.raises(RunSpecError, match="virtual seconds"):
        Absence("worker-0", at_s, for_s)


def test_what_is_no_absence_is_refused() -> None:
    with pytest.raises(RunSpecError, match=r"pl\.Absence"):
        Churn([("worker-0", 3, 1)])  # type: ignore[list-item]
