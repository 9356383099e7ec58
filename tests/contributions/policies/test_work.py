import pytest

from pluralis_lab.contributions.policies import POLICIES, work_units
from pluralis_lab.errors import EvidenceError


@pytest.mark.parametrize("num_stages", [1, 2, 3, 5])
def test_a_fully_attested_micro_batch_pays_three_passes_at_every_stage(num_stages):
    for stage in range(num_stages):
        kinds = ["contribution"] + ["forward"] * (stage < num_stages - 1) + ["backward"] * (stage > 0)
        assert sum(work_units(kind, stage, num_stages, 64, 1000) for kind in kinds) == 3 * 64 * 1000


def test_the_contribution_pays_what_no_neighbour_consumed():
    assert [work_units("contribution", stage, 3, 1, 1) for stage in range(3)] == [2, 1, 2]
    assert work_units("contribution", 0, 1, 1, 1) == 3


def test_units_are_integers_without_an_upper_limit():
    assert work_units("forward", 0, 2, 10**12, 10**15) == 10**27


@pytest.mark.parametrize(("kind", "stage"), [("forward", 2), ("backward", 0), ("contribution", 3), ("contribution", -1)])
def test_receipts_that_a_stage_cannot_have_are_refused(kind, stage):
    with pytest.raises(EvidenceError, match="stage"):
        work_units(kind, stage, 3, 64, 1000)


def test_the_spec_names_it():
    from pluralis_lab.parts import Work

    assert POLICIES[Work().kind] is work_units
