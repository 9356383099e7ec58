"""The optimizer is the one that the spec describes, and its rate warms up."""

import subprocess
import sys

import pytest
import torch

from pluralis_lab.errors import RunError, RunSpecError
from pluralis_lab.learning.optimizers import build_optimizer, is_orthogonalised, learning_rate, slots
from pluralis_lab.models.stage import build_stage
from pluralis_lab.parts import SGD, AdamW, Muon, NAdam
from pluralis_lab.spec import RunSpec


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


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_the_heavy_ball_or_nesterovs(nesterov):
    module = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    optimizer = build_optimizer(module, SGD(lr=0.3, momentum=0.5, nesterov=nesterov, weight_decay=0.2))
    w, velocity = module.weight.item(), None
    for g in (0.7, -0.2, 0.4):
        module.weight.grad = torch.full_like(module.weight, g)
        optimizer.step()
        g = g + 0.2 * w
        velocity = g if velocity is None else 0.5 * velocity + g
        w = w - 0.3 * (g + 0.5 * velocity if nesterov else velocity)
        assert module.weight.item() == pytest.approx(w, rel=1e-12)


TORCHS = {
    "adamw": (
        AdamW(lr=0.01, weight_decay=0.1),
        lambda weights: torch.optim.AdamW(weights, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, foreach=True),
    ),
    "sgd": (SGD(lr=0.1, momentum=0.9), lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, foreach=True)),
}


@pytest.mark.parametrize(("description", "build"), TORCHS.values(), ids=TORCHS)
def test_steps_are_those_of_torchs_own_classes_to_the_bit(description, build):
    ours, theirs = torch.nn.Linear(7, 5), torch.nn.Linear(7, 5)
    theirs.load_state_dict(ours.state_dict())
    rule, peer = build_optimizer(ours, description), build(theirs.parameters())
    for _ in range(5):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        rule.step()
        peer.step()
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    rule.zero_grad()
    before = [weight.clone() for weight in ours.parameters()]
    rule.step()
    assert all(map(torch.equal, ours.parameters(), before))


def test_no_optimizer_that_is_steps_alone_loads_the_compiler():
    """It has 800 modules: a third of what each start would wait for."""
    code = """
import sys, torch
from pluralis_lab.learning.optimizers import build_optimizer
from pluralis_lab.parts import SGD, AdamW, NAdam
for description in (AdamW(), SGD(), NAdam()):
    module = torch.nn.Linear(2, 2)
    rule = build_optimizer(module, description)
    module(torch.zeros(1, 2)).sum().backward()
    rule.step()
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_looking_ahead_without_momentum_is_refused():
    with pytest.raises(RunSpecError, match=r"nesterov=True, momentum=0\.0\): there is no velocity"):
        RunSpec(optimizer=SGD(momentum=0, nesterov=True))


@pytest.fixture
def stages(make_spec):
    """Head, middle and tail: tables, gains, matrices, a projection."""
    return [build_stage(make_spec(), stage, 256) for stage in range(3)]


def step_once(module, optimizer):
    """Give every weight a gradient, make a step, and return what each weight moved by."""
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for seed, parameter in enumerate(module.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed), dtype=parameter.dtype)
    optimizer.step()
    return {name: parameter.detach() - before[name] for name, parameter in module.named_parameters()}


def test_muon_moves_matrices_by_an_orthogonal_step_of_adamws_size_and_leaves_the_rest_to_adamw(stages, make_spec):
    description = Muon(lr=0.01, momentum=0.9)
    for index, module in enumerate(stages):
        moved = step_once(module, build_optimizer(module, description))
        twin = build_stage(make_spec(), index, 256)
        by_adamw = step_once(twin, build_optimizer(twin, AdamW(lr=0.01)))
        matrices = {name for name, parameter in module.named_parameters() if is_orthogonalised(name, parameter)}
        assert matrices == {name for name in moved if name.startswith("blocks.") and moved[name].ndim == 2} != set()
        for name, step in moved.items():
            if name in matrices:
                # Five Newton-Schulz iterations bring singular values near one (0.7 to 1.2); 0.2 sqrt(max) is AdamW's usual RMS.
                sizes = torch.linalg.svdvals(step) / (0.01 * 0.2 * max(step.shape) ** 0.5)
                assert float(sizes.min()) > 0.5, name
                assert float(sizes.max()) < 1.5, name
            else:
                assert torch.equal(step, by_adamw[name]), name


def test_the_rate_of_a_round_reaches_both_rules_of_muon(stages):
    module = stages[0]
    optimizer = build_optimizer(module, Muon())
    optimizer.lr = 0.0
    assert all(not step.any() for step in step_once(module, optimizer).values())


@pytest.mark.parametrize("description", [AdamW(), NAdam(), SGD(), SGD(momentum=0), Muon()], ids=repr)
def test_what_an_optimizer_keeps_is_what_a_snapshot_is_checked_for(stages, description):
    for module in stages:
        optimizer = build_optimizer(module, description)
        assert not any(optimizer.state.values())
        step_once(module, optimizer)
        for name, parameter in module.named_parameters():
            kept = {key for key, value in optimizer.state.get(parameter, {}).items() if value is not None}
            assert kept == slots(description, name, parameter), name


def test_a_torch_without_muon_is_named(stages, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(RunError, match=r"install torch 2\.9 or later, or use optimizer=pl\.AdamW"):
        build_optimizer(stages[0], Muon())
