"""What late gradients change: NAdam's discounted gradient, the rules without stashing, and the copies of the weights."""

import math

import pytest
import torch
from torch import nn

from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.delays import delay_factor, expected_delay, stage_rule
from pluralis_lab.learning.nesterov_adam import NesterovAdam
from pluralis_lab.learning.passes import _looked_at_anew
from pluralis_lab.learning.stash import WeightStash
from pluralis_lab.models.stage import build_stage
from pluralis_lab.parts import GPT, AdamW, Dense, NAdam, Subspace
from pluralis_lab.spec import RunSpec


def late_spec(**changes: object) -> RunSpec:
    fields = {"model": GPT(n_layer=8), "stages": 8, "schedule": "async", "batch_size": 8, "micro_batches": 1, "steps": 800}
    return RunSpec(**{**fields, **changes})


@pytest.mark.parametrize("discounted", [True, False])
def test_nadam_is_its_formula(discounted: bool) -> None:
    rule = NAdam(lr=0.1, beta1=0.9, beta2=0.5, eps=1e-3, weight_decay=0.2, discounted=discounted)
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = NesterovAdam([weight], rule)
    expected, m, v, product = 2.0, 0.0, 0.0, 1.0
    for t, g in enumerate([0.3, -1.0, 0.7], start=1):
        weight.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.5 * v + 0.5 * g * g
        now, then = (0.9 * (1 - 0.5 * 0.96 ** (step * 0.004)) for step in (t, t + 1))
        product *= now
        own = (1 - now) * g / (1 - product) if discounted else g
        direction = own + then * m / (1 - product * then)
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * direction / (math.sqrt(v / (1 - 0.5**t)) + 1e-3)
        assert weight.item() == pytest.approx(expected, abs=1e-7)


def test_nadam_is_torchs() -> None:
    rule = NAdam(lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1)
    torch.manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64)
    own, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    peer = torch.optim.NAdam(
        [other], lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, momentum_decay=0.004, decoupled_weight_decay=True
    )
    ours = NesterovAdam([own], rule)
    for _ in range(5):
        own.grad = torch.randn(5, 3, dtype=torch.float64)
        other.grad = own.grad.clone()
        ours.step()
        peer.step()
    assert torch.allclose(own, other, atol=1e-9)


def test_expected_delays_are_the_formulas() -> None:
    assert [expected_delay(late_spec(), stage) for stage in range(8)] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert [expected_delay(late_spec(micro_batches=4), stage) for stage in range(8)] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert expected_delay(late_spec(schedule="sync"), 0) == 0


def test_only_without_stashing_is_a_late_stages_rule_another_one() -> None:
    stashing, without = late_spec(optimizer=NAdam()), late_spec(optimizer=NAdam(), stashing=False)
    assert all(stage_rule(stashing, stage) == stashing.optimizer for stage in range(8))
    assert [stage_rule(without, stage).beta1 for stage in (0, 7)] == pytest.approx([0.9 + 0.09 * 7 / 8, 0.9])
    assert stage_rule(late_spec(optimizer=AdamW(), stashing=False), 0) == AdamW()
    assert delay_factor(stashing, 0, 0) == 1.0
    assert delay_factor(without, 0, 0) == pytest.approx(1 / 7)
    assert delay_factor(without, 7, 0) == 1.0
    assert delay_factor(without, 0, 50) == pytest.approx(7**-0.5)
    assert delay_factor(without, 0, 100) == delay_factor(without, 0, 799) == 1.0


def test_a_late_stages_rate_is_over_its_delay_to_the_power_that_its_rule_names() -> None:
    whole, root = (late_spec(optimizer=NAdam(delay_power=power)) for power in (1.0, 0.5))
    for round_ in (0, 799):
        assert [delay_factor(whole, stage, round_) for stage in range(8)] == pytest.approx(
            [1 / 7, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1, 1]
        )
        assert delay_factor(root, 0, round_) == pytest.approx(7**-0.5)
    several = whole.replace(micro_batches=4)  # a quarter of the updates, a quarter of the delays
    assert all(delay_factor(several, stage, 0) == 1.0 for stage in range(8))
    assert delay_factor(whole.replace(schedule="sync"), 0, 0) == 1.0


def test_without_stashing_a_late_stages_rate_rises_to_what_its_rule_allows() -> None:
    spec = late_spec(optimizer=NAdam(delay_power=0.5), stashing=False)
    assert delay_factor(spec, 0, 0) == pytest.approx(1 / 7)
    assert delay_factor(spec, 0, 25) == pytest.approx(7**-0.75)
    assert delay_factor(spec, 0, 50) == delay_factor(spec, 0, 799) == pytest.approx(7**-0.5)


def test_a_stages_step_is_made_with_its_own_rate() -> None:
    steps = {}
    for power in (0.0, 1.0):
        rule = NAdam(lr=0.1, delay_power=power, warmup=0)
        spec = late_spec(model=GPT(n_layer=8, n_head=2, d_model=8, context=4), boundary=Dense(), optimizer=rule)
        compute = StageCompute(spec, 2, None, vocab=16)
        before = torch.cat([weight.detach().flatten() for weight in compute.parameters])
        compute._step(0, torch.linspace(-1, 1, len(before)))
        steps[power] = torch.cat([weight.detach().flatten() for weight in compute.parameters]) - before
    assert steps[0.0].abs().max() > 0.05
    assert torch.allclose(steps[1.0], steps[0.0] / 5, atol=1e-6)


def test_a_late_stage_that_was_restored_goes_on_to_the_bit() -> None:
    rule = NAdam(beta1=0.95, beta2=0.95, delay_power=1.0)
    spec = late_spec(model=GPT(n_layer=8, n_head=2, d_model=8, context=4), boundary=Dense(), optimizer=rule)
    whole, restored = (StageCompute(spec, 2, None, vocab=16) for _ in range(2))
    gradients = [torch.randn(whole.num_parameters, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    for round_, gradient in enumerate(gradients):
        if round_ == 4:
            kept = whole.run(tasks.Snapshot(round_))
            assert isinstance(kept, tasks.SnapshotDone)
            restored.run(tasks.Restore(round_, kept.state, kept.digest))
        for compute in (whole, restored) if round_ >= 4 else (whole,):
            compute._step(round_, gradient)
    assert whole.state_digest() == restored.state_digest()


def test_what_is_looked_at_anew_is_the_weight_as_it_is_by_then() -> None:
    weight = nn.Parameter(torch.eye(3, dtype=torch.float64))
    x = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    with _looked_at_anew():
        out = (x @ weight).tanh().sum()
    with torch.no_grad():
        weight.mul_(5.0)
    through_input, through_weight = torch.autograd.grad(out, [x, weight])
    slope = 1 - math.tanh(1.0) ** 2  # of what went forward, at the old weight
    assert through_input.tolist() == [[pytest.approx(5 * slope)] * 3]
    assert through_weight.tolist() == [[pytest.approx(slope)] * 3] * 3


def test_a_copy_is_the_weights_it_was_taken_at_and_is_used_again() -> None:
    master = build_stage(late_spec(model=GPT(n_layer=8, n_head=2, d_model=8, context=4), boundary=Subspace(4)), 1, 16)
    newest, stash = master.blocks[0].qkv, WeightStash(master)
    first = stash.take()
    before = [weight.clone() for weight in first.weights]
    assert stash.take() is first
    with torch.no_grad():
        newest.add_(1.0)
    drawn, turned = master.basis, torch.eye(8)[:, :4]
    master.take_basis(turned)
    stash.forget_newest()
    second = stash.take()
    assert second is not first
    weights = list(master.parameters())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(second.weights, weights, strict=True))
    assert torch.equal(first.module.basis, drawn)  # what is under way goes back through what it went forward through
    assert torch.equal(second.module.basis, turned)
    assert all(torch.equal(now, then) for now, then in zip(first.weights, before, strict=True))
    stash.give_back(first)
    stash.give_back(first)
    stash.forget_newest()
    assert stash.take() is first
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(first.weights, weights, strict=True))
    assert torch.equal(first.module.basis, turned)
    assert stash.num_copies == 2
