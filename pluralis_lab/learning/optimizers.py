"""The update rules a stage can apply to its own weights: torch's, as the spec describes them."""

from typing import Any

import torch
from torch import Tensor, nn

from pluralis_lab.errors import RunError
from pluralis_lab.learning.nesterov_adam import NesterovAdam
from pluralis_lab.parts import SGD, AdamW, Muon, NAdam, Optimizer

ADAM_SLOTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
MOMENTUM_SLOTS = frozenset({"momentum_buffer"})


def build_optimizer(module: nn.Module, description: Optimizer) -> torch.optim.Optimizer:
    """Build the optimizer over the module's parameters. The rate is set anew each round by `learning_rate`.

    Raises RunError where this torch has no such rule.
    """
    if isinstance(description, SGD):
        return torch.optim.SGD(
            module.parameters(),
            lr=description.lr,
            momentum=description.momentum,
            nesterov=description.nesterov,
            weight_decay=description.weight_decay,
            foreach=True,
        )
    if isinstance(description, Muon):
        return _muon(module, description)
    if isinstance(description, NAdam):
        return NesterovAdam(module.parameters(), description)
    return _adamw(module.parameters(), description)


def learning_rate(description: Optimizer, round_: int) -> float:
    """Return the rate of round `round_` (0-based): a linear warm-up, then constant."""
    return description.lr * min(1.0, (round_ + 1) / (description.warmup + 1))


def slots(description: Optimizer, name: str, parameter: Tensor) -> frozenset[str]:
    """Return the names of what the optimizer keeps for the weight `name` once it has made a step."""
    if isinstance(description, AdamW | NAdam) or (isinstance(description, Muon) and not is_orthogonalised(name, parameter)):
        return ADAM_SLOTS
    return MOMENTUM_SLOTS if description.momentum else frozenset()


def is_orthogonalised(name: str, parameter: Tensor) -> bool:
    """Say whether Muon's own rule is for this weight: a matrix inside a block. Tables, gains and the head are AdamW's."""
    return parameter.ndim == 2 and name.startswith("blocks.")


class SideBySide(torch.optim.Optimizer):
    """Optimizers that have a part of the weights each, used as one: their groups and states are its own."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self.optimizers = optimizers
        for optimizer in optimizers:
            optimizer.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Let each make its step. Raises RunError for a `closure`, which none of ours needs."""
        if closure is not None:
            raise RunError("this optimizer takes no closure")
        for optimizer in self.optimizers:
            optimizer.step()


def _adamw(parameters: Any, description: AdamW | Muon) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=description.lr,
        betas=(description.beta1, description.beta2),
        eps=description.eps,
        weight_decay=description.weight_decay,
        foreach=True,
    )


def _muon(module: nn.Module, description: Muon) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise RunError(f"torch {torch.__version__} has no Muon; install torch 2.9 or later, or use optimizer=pl.AdamW()")
    named = list(module.named_parameters())
    inside = [parameter for name, parameter in named if is_orthogonalised(name, parameter)]
    others = [parameter for name, parameter in named if not is_orthogonalised(name, parameter)]
    parts: list[torch.optim.Optimizer] = []
    if inside:
        parts.append(
            torch.optim.Muon(
                inside,
                lr=description.lr,
                momentum=description.momentum,
                weight_decay=description.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others:
        parts.append(_adamw(others, description))
    return SideBySide(parts)
