"""Adam with Nesterov's look-ahead, whose gradient is discounted: the delay correction for an asynchronous pipeline."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from pluralis_lab.learning.update_rule import UpdateRule
from pluralis_lab.parts import NAdam

MOMENTUM_DECAY = 0.004
"""ψ of Dozat's schedule: γ is half of its limit at first, and within 1 % of it after 24,000 steps."""


class NesterovAdam(UpdateRule):
    """NAdam with decoupled weight decay (Dozat 2016; arXiv 2505.01099 for what a γ near one does to delays).

    With m, v the moments, v̂ corrected for its start, γ_t = beta1 (1 − ½ · 0.96^(t / 250)) and Γ_t = γ_1 … γ_t:
    ``w -= lr / (√v̂ + eps) · ((1 − γ_t) g / (1 − Γ_t) + γ_t+1 m / (1 − Γ_t+1))``. Without the discount the gradient's own part
    is g itself.

    weights : `[...]` each
    """

    def __init__(self, weights: Iterable[Tensor], description: NAdam) -> None:
        super().__init__(weights, description.lr)
        self.description = description
        self._products = [1.0]

    def update(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        rule, lr, states = self.description, self.lr, self.moments(weights)
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
        own = (1 - self._gamma(step)) / (1 - self._product(step)) if rule.discounted else 1.0
        torch._foreach_addcdiv_(weights, gradients, roots, -lr * own)
        torch._foreach_addcdiv_(weights, averages, roots, -lr * self._gamma(step + 1) / (1 - self._product(step + 1)))

    def _gamma(self, step: int) -> float:
        rising = 1 - 0.5 * math.pow(0.96, step * MOMENTUM_DECAY)
        return self.description.beta1 * rising

    def _product(self, step: int) -> float:
        """Return Γ of `step`; the products before it are kept, and made anew in a process that has loaded a snapshot."""
        while len(self._products) <= step:
            self._products.append(self._products[-1] * self._gamma(len(self._products)))
        return self._products[step]
