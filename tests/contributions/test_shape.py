import dataclasses

import pytest

from pluralis_lab.contributions.shape import RunShape
from pluralis_lab.errors import EvidenceError


def test_it_is_built_from_run_json_and_the_spec(grid):
    from pluralis_lab.spec import RunSpec

    spec = RunSpec(stages=3, replicas=2, micro_batches=2, batch_size=4, epoch_rounds=2)
    shape = grid.shape
    info = {
        "id": shape.run_id,
        "participants": [{"name": name, "address": address} for name, address in shape.participants.items()],
        "attesters": [{"name": name, "address": address} for name, address in shape.attesters.items()],
        "workers": [dataclasses.asdict(seat) | {"key": "0x"} for seat in shape.workers],
        "chain": {"kind": "embedded", "chain_id": shape.chain_id, "ledger": shape.ledger},
    }
    expected = dataclasses.replace(shape, tokens_per_micro_batch=spec.tokens_per_micro_batch)
    assert RunShape.from_run(info, spec, [1000, 1007, 1014]) == expected
    with pytest.raises(EvidenceError, match="attesters"):
        RunShape.from_run({name: value for name, value in info.items() if name != "attesters"}, spec, [1, 1, 1])


@pytest.mark.parametrize(("num", "quorum"), [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7)])
def test_the_quorum_is_more_than_two_thirds(grid, num, quorum):
    shape = dataclasses.replace(grid.shape, attesters={f"lab-{i}": f"0x{i:040x}" for i in range(num)})
    assert shape.quorum == quorum


def test_rounds_belong_to_epochs(grid):
    assert [list(grid.shape.rounds(epoch)) for epoch in range(2)] == [[0, 1], [2, 3]]
    assert grid.shape.stage_workers[1] == ("worker-2", "worker-3")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stage_flops": (1, 2)}, "stage_flops"),
        ({"replicas": 0}, "replicas=0"),
        ({"participants": {}}, "no participant"),
        ({"run_id": "12"}, "run_id"),
        ({"ledger": "0x1"}, "address"),
        ({"policy": "luck"}, "policy='luck'"),
        ({"stages": 2, "stage_flops": (1, 1)}, "worker-4 is at stage 2"),
    ],
)
def test_contradictions_are_refused_with_the_value(grid, change, reason):
    with pytest.raises(EvidenceError, match=reason):
        dataclasses.replace(grid.shape, **change)


def test_a_name_stands_for_one_worker(grid):
    with pytest.raises(EvidenceError, match="each name"):
        dataclasses.replace(grid.shape, workers=(*grid.shape.workers, grid.shape.workers[0]))
