"""The update rules a stage can apply to its own weights."""

import torch
from torch import nn

from pluralis_lab.parts import AdamW


def build_optimizer(module: nn.Module, description: AdamW) -> torch.optim.Optimizer:
    """Build torch's AdamW over the module's parameters. The rate is set anew each round by `learning_rate`."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=description.lr,
        betas=(description.beta1, description.beta2),
        eps=description.eps,
        weight_decay=description.weight_decay,
        foreach=True,
    )


def learning_rate(description: AdamW, round_: int) -> float:
    """Return the rate of round `round_` (0-based): a linear warm-up, then constant."""
    return description.lr * min(1.0, (round_ + 1) / (description.warmup + 1))
