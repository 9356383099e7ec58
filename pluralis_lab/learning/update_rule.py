"""What all optimizers here have in common: the weights they change, and what they keep of each.

Their steps are torch's own functions. Its classes load the whole of its compiler when the first is made, 800 modules and a third
of the time until a worker can start.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


class UpdateRule:
    """Changes `weights` in place by their `.grad`; a kind of optimizer says how in `update`.

    lr : the rate of the next step
    state : of each weight that has made a step, by name: what the rule keeps of it
    """

    def __init__(self, weights: Iterable[Tensor], lr: float) -> None:
        self.weights, self.lr = list(weights), lr
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Change each weight that has a gradient."""
        weights = [weight for weight in self.weights if weight.grad is not None]
        if weights:
            self.update(weights, [weight.grad for weight in weights if weight.grad is not None])

    def update(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Make the step of this kind of optimizer."""
        raise TypeError(f"{type(self).__name__} does not say how it changes weights")

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.weights:
            weight.grad = None

    def moments(self, weights: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return what is kept of each of `weights`: how many steps it has made, and the means of gradients and their squares."""
        for weight in weights:
            if not self.state.get(weight):
                self.state[weight] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        return [self.state[weight] for weight in weights]
