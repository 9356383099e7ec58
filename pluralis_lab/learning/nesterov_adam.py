"""Adam with Nesterov's look-ahead, whose gradient is discounted: the delay correction for an asynchronous pipeline."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pluralis_lab.errors import RunError
from pluralis_lab.parts import NAdam


class NesterovAdam(torch.optim.Optimizer):
    """NAdam with decoupled weight decay and a constant γ = beta1.

    With m, v the moments, and v̂ corrected for its start (Dozat 2016; arXiv 2505.01099 for what γ near one does to delays):
    ``w -= lr / (√v̂ + eps) · ((1 − γ) g / (1 − γᵗ) + γ m / (1 − γᵗ⁺¹))``. Without the discount the
    gradient's own part is g itself.

    parameters : the weights, `[...]` each
    """

    def __init__(self, parameters: Iterable[nn.Parameter], description: NAdam) -> None:
        super().__init__(parameters, {"lr": description.lr})
        self.description = description

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make a step from the parameters' `.grad`. Raises RunError for a `closure`, which this rule has no use for."""
        if closure is not None:
            raise RunError("this optimizer takes no closure")
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if weights:
                self._step(weights, group["lr"])

    def _step(self, weights: list[Tensor], lr: float) -> None:
        rule = self.description
        states = [self.state[weight] or self._begin(weight) for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        averages, squares = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        torch._foreach_add_([state["step"] for state in states], 1)
        step = int(states[0]["step"])
        torch._foreach_lerp_(averages, gradients, 1 - rule.beta1)
        torch._foreach_mul_(squares, rule.beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - rule.beta2)
        roots = torch._foreach_div(torch._foreach_sqrt(squares), (1 - rule.beta2**step) ** 0.5)
        torch._foreach_add_(roots, rule.eps)
        if rule.weight_decay:
            torch._foreach_mul_(weights, 1 - lr * rule.weight_decay)
        own = (1 - rule.beta1) / (1 - rule.beta1**step) if rule.discounted else 1.0
        torch._foreach_addcdiv_(weights, gradients, roots, -lr * own)
        torch._foreach_addcdiv_(weights, averages, roots, -lr * rule.beta1 / (1 - rule.beta1 ** (step + 1)))

    def _begin(self, weight: Tensor) -> dict[str, Tensor]:
        state = {
            "step": torch.zeros((), dtype=torch.float32),
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
        }
        self.state[weight] = state
        return state
