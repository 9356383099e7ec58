import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.contributions import agreement as module
from pluralis_lab.contributions.agreement import agreement, agreements, gradient_norm


def gradient(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in ((7, 5), (11,), ())]


def flat(arrays):
    return np.concatenate([np.ravel(a).astype(np.float64) for a in arrays])


@given(seeds=st.lists(st.integers(0, 1000), min_size=2, max_size=6, unique=True))
def test_agreement_is_the_cosine_with_the_others_mean(seeds):
    grads = {f"worker-{seed}": gradient(seed) for seed in seeds}
    for name, value in agreements(grads).items():
        own = flat(grads[name])
        mean = np.mean([flat(other) for key, other in grads.items() if key != name], axis=0)
        assert value == pytest.approx(own @ mean / np.linalg.norm(own) / np.linalg.norm(mean), abs=1e-12)


def test_one_workers_agreement_is_that_of_the_whole_stage():
    a, b, c = gradient(1), gradient(2), gradient(3)
    assert agreement(a, [b, c]) == agreements({"a": a, "b": b, "c": c})["a"]


def test_same_and_opposite_gradients_agree_fully_and_not_at_all():
    a = gradient(1)
    assert agreement(a, [a, a]) == pytest.approx(1.0, abs=1e-12)
    assert agreement(a, [[-x for x in a]]) == pytest.approx(-1.0, abs=1e-12)
    assert -1.0 <= agreement(a, [a]) <= 1.0


def test_a_large_gradient_does_not_drown_the_sign_of_a_small_one():
    small, huge = gradient(1), [1e12 * x for x in gradient(2)]
    others = {"small": small, "again": small, "huge": huge}
    own, mean = flat(huge), 2 * flat(small)
    assert agreements(others)["huge"] == pytest.approx(own @ mean / np.linalg.norm(own) / np.linalg.norm(mean), abs=1e-9)


def test_agreement_is_undefined_for_one_replica_and_for_zero_norm():
    a, zero = gradient(1), [0 * x for x in gradient(1)]
    assert agreement(a, []) is None
    assert agreement(zero, [a]) is None
    assert agreement(a, [zero]) is None
    assert agreement(a, [gradient(2), [-x for x in gradient(2)]]) is None  # the others cancel


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_poisoned_gradient_is_undefined_and_says_nothing_else(bad):
    a, poisoned = gradient(1), gradient(2)
    poisoned[1][3] = bad
    assert gradient_norm(poisoned) is None
    assert agreements({"a": a, "p": poisoned}) == {"a": None, "p": None}


def test_the_norm_is_summed_in_float64():
    ones = np.full(3_000_000, 0.1, dtype=np.float32)
    assert gradient_norm([ones]) == pytest.approx(math.sqrt(3_000_000) * float(np.float32(0.1)), rel=1e-12)
    assert gradient_norm([]) == 0.0
    assert gradient_norm([np.array([3.0]), np.array([[4.0]])]) == 5.0


def test_chunks_do_not_change_the_result(monkeypatch):
    grads = {str(i): gradient(i) for i in range(3)}
    whole = agreements(grads)
    monkeypatch.setattr(module, "_CHUNK", 4)
    assert agreements(grads) == pytest.approx(whole, abs=1e-14)


def test_gradients_of_different_stages_are_not_compared():
    with pytest.raises(ValueError, match="same arrays"):
        agreement(gradient(1), [gradient(1)[:2]])
