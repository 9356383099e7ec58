"""Seeded numbers: the same for everyone who knows seed and name, whatever else was drawn before."""

import numpy as np
import pytest
import torch

from pluralis_lab.models.seeded import generator, normal, orthonormal


def test_numbers_do_not_depend_on_what_was_drawn_before():
    alone = normal(7, "a", (5, 3), 1.0, torch.float64)
    normal(7, "b", (100,), 1.0, torch.float64)
    torch.manual_seed(3)
    np.random.default_rng(0).random(10)
    torch.rand(10)
    assert torch.equal(normal(7, "a", (5, 3), 1.0, torch.float64), alone)


def test_seed_and_name_both_count():
    a = normal(7, "a", (50,), 1.0, torch.float64)
    assert not torch.equal(a, normal(8, "a", (50,), 1.0, torch.float64))
    assert not torch.equal(a, normal(7, "b", (50,), 1.0, torch.float64))
    assert generator(1, "x").standard_normal() != generator(11, "x").standard_normal()


def test_the_generator_is_the_one_that_runs_were_recorded_with():
    # A change here makes every recorded run irreproducible.
    assert normal(0, "embedding", (3,), 1.0, torch.float64).tolist() == pytest.approx(
        [-0.3279541167905854, -0.09826893564514427, -0.9736803611498583], rel=0, abs=0
    )


def test_float32_is_float64_rounded_last():
    exact = normal(7, "a", (1000,), 0.3, torch.float64)
    assert torch.equal(normal(7, "a", (1000,), 0.3, torch.float32), exact.to(torch.float32))
    assert abs(exact.std().item() - 0.3) < 0.03


@pytest.mark.parametrize(("rows", "columns"), [(4, 1), (16, 16), (128, 16), (300, 299)])
def test_columns_are_orthonormal_and_their_signs_fixed(rows, columns):
    u = orthonormal(3, "basis", rows, columns)
    assert u.shape == (rows, columns)
    assert np.abs(u.T @ u - np.eye(columns)).max() < 1e-12
    drawn = generator(3, "basis").standard_normal((rows, columns))
    r = u.T @ drawn  # the drawn matrix is u r with r upper triangular and its diagonal positive: that makes u unique
    assert (np.diag(r) > 0).all()
    assert np.abs(np.tril(r, -1)).max() < 1e-10
