"""The optimizer is the one that the spec describes, and its rate warms up."""

import pytest
import torch

from pluralis_lab.learning.optimizers import build_optimizer, learning_rate
from pluralis_lab.parts import AdamW


def test_the_rate_rises_linearly_and_then_stays():
    description = AdamW(lr=1.1, warmup=10)
    rates = [learning_rate(description, round_) for round_ in range(30)]
    assert rates[:11] == pytest.approx([0.1 * n for n in range(1, 12)])
    assert rates[10:] == [1.1] * 20


def test_without_warm_up_the_rate_is_whole_from_the_first_round():
    assert learning_rate(AdamW(lr=0.5, warmup=0), 0) == 0.5


def test_every_number_of_the_description_reaches_the_update():
    numbers = {"lr": 0.3, "beta1": 0.5, "beta2": 0.6, "eps": 0.01, "weight_decay": 0.2}
    module = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    optimizer = build_optimizer(module, AdamW(**numbers))
    w = module.weight.item()
    m = v = 0.0
    for t, g in enumerate([0.7, -0.2, 0.4], start=1):
        module.weight.grad = torch.full_like(module.weight, g)
        optimizer.step()
        m, v = 0.5 * m + 0.5 * g, 0.6 * v + 0.4 * g * g  # arXiv 1711.05101, algorithm 2
        w = w * (1 - 0.3 * 0.2) - 0.3 * (m / (1 - 0.5**t)) / ((v / (1 - 0.6**t)) ** 0.5 + 0.01)
        assert module.weight.item() == pytest.approx(w, rel=1e-12)
