"""How late a stage's gradients are under ``schedule="async"``, and what the update rule does about it without stashing.

Source: arXiv 2505.01099; the rate's part after PipeMare (arXiv 1910.05124).
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
    """Return what the rate is multiplied by: τ^-ρ without stashing, where ρ falls from one to zero; else one."""
    if spec.stashing or not spec.is_async:
        return 1.0
    rest = max(0.0, 1.0 - round_ / (ANNEALED_PART * spec.steps))
    return float(max(1, expected_delay(spec, stage)) ** -rest)


def stage_rule(spec: RunSpec, stage: int) -> Optimizer:
    """Return the update rule of `stage`: without stashing, NAdam's γ is 0.9 + 0.09 (P − i) / P, more for later gradients."""
    rule = spec.optimizer
    if spec.stashing or not spec.is_async or not isinstance(rule, NAdam):
        return rule
    return rule.model_copy(update={"beta1": 0.9 + 0.09 * (spec.stages - stage - 1) / spec.stages})
