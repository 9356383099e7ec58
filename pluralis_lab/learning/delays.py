"""How late a stage's gradients are under ``schedule="async"``, and what its update rule and its rate are for that.

A step along a gradient that is τ steps old is stable only for rates below a bound that falls as 1 / τ: PipeMare (arXiv
1910.05124), which lets the rates rise to one again while its own schedule lowers them all. Ours is constant, so the bound stays.
Without stashing: arXiv 2505.01099.
"""

from pluralis_lab.parts import NAdam, Optimizer
from pluralis_lab.spec import RunSpec

ANNEALED_PART = 1 / 8
"""Part of the run after which a late stage has the full rate; 2505.01099 took 6,000 of 50,000 rounds."""


def expected_delay(spec: RunSpec, stage: int) -> int:
    """Return τ of `stage` (0-based): steps that its gradients are late when no link or worker is slow.

    ⌊(2(P − i) + 1) / 2K⌋ with P stages, i counted from 1, and K micro-batches an update.
    """
    if not spec.is_async:
        return 0
    return (2 * (spec.stages - stage - 1) + 1) // (2 * spec.micro_batches)


def delay_factor(spec: RunSpec, stage: int, round_: int) -> float:
    """Return what the rate is multiplied by: τ^-ρ, where ρ is NAdam's `delay_power`, and one where τ is 0.

    Without stashing ρ falls from one to that, which is zero for other rules.
    """
    if not spec.is_async:
        return 1.0
    rule = spec.optimizer
    power = rule.delay_power if isinstance(rule, NAdam) else 0.0
    if not spec.stashing:
        power = max(power, 1.0 - round_ / (ANNEALED_PART * spec.steps))
    return float(max(1, expected_delay(spec, stage)) ** -power)


def stage_rule(spec: RunSpec, stage: int) -> Optimizer:
    """Return the update rule of `stage`: without stashing, NAdam's γ is 0.9 + 0.09 (P − i) / P, more for later gradients."""
    rule = spec.optimizer
    if spec.stashing or not spec.is_async or not isinstance(rule, NAdam):
        return rule
    return rule.model_copy(update={"beta1": 0.9 + 0.09 * (spec.stages - stage - 1) / spec.stages})
