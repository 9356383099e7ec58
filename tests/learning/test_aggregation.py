"""The weighted mean: the same bits whatever came first, and no micro-batch missing or counted twice."""

import itertools

import pytest
import torch

from pluralis_lab.learning.aggregation import weighted_mean


def test_the_order_of_arrival_does_not_change_a_bit():
    generator = torch.Generator().manual_seed(0)
    gradients = {f"worker-{i}": torch.randn(1000, generator=generator) * 10.0 ** (4 * i) for i in range(4)}
    counts = dict.fromkeys(gradients, 2)
    expected = weighted_mean(gradients, counts, total=8)
    for order in itertools.permutations(gradients):
        again = weighted_mean({name: gradients[name] for name in order}, {name: counts[name] for name in order}, total=8)
        assert torch.equal(again, expected)
    exact = sum(gradient.double() for gradient in gradients.values())
    assert torch.allclose(expected.double(), exact, rtol=1e-5, atol=1e-1)


def test_a_replica_that_counted_nothing_adds_nothing():
    gradients = {"a": torch.ones(3), "b": torch.full((3,), float("nan"))}
    assert weighted_mean(gradients, {"a": 4, "b": 0}, total=4).tolist() == [1, 1, 1]


def test_the_result_is_its_own_memory():
    gradient = torch.ones(3)
    weighted_mean({"a": gradient}, {"a": 1}, total=1).zero_()
    assert gradient.sum() == 3


@pytest.mark.parametrize("counts", [{"a": 1, "b": 2}, {"a": 3, "b": 2}, {"a": 0, "b": 0}])
def test_missing_or_double_micro_batches_are_refused(counts):
    gradients = {"a": torch.ones(3), "b": torch.ones(3)}
    with pytest.raises(ValueError, match="not 4 micro-batches"):
        weighted_mean(gradients, counts, total=4)
