"""The update rules a stage can apply to its own weights: torch's, as the spec describes them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from pluralis_lab.errors import RunError
from pluralis_lab.learning.nesterov_adam import NesterovAdam
from pluralis_lab.learning.update_rule import UpdateRule
from pluralis_lab.parts import SGD, AdamW, Muon, NAdam, Optimizer

ADAM_SLOTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
MOMENTUM_SLOTS = frozenset({"momentum_buffer"})


def build_optimizer(module: nn.Module, description: Optimizer) -> UpdateRule:
    """Build the optimizer over the module's parameters. The rate is set anew each round by `learning_rate`.

    Raises RunError where this torch has no such rule.
    """
    if isinstance(description, SGD):
        return Momentum(module.parameters(), description)
    if isinstance(description, Muon):
        return Orthogonalised(module, description)
    if isinstance(description, NAdam):
        return NesterovAdam(module.parameters(), description)
    return Adam(module.parameters(), description)


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


class Adam(UpdateRule):
    """torch's AdamW."""

    def __init__(self, weights: Iterable[Tensor], description: AdamW | Muon) -> None:
        super().__init__(weights, description.lr)
        self.description = description

    def update(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        rule, kept = self.description, self.moments(weights)
        adamw(
            weights,
            gradients,
            [moments["exp_avg"] for moments in kept],
            [moments["exp_avg_sq"] for moments in kept],
            [],
            [moments["step"] for moments in kept],
            foreach=True,
            amsgrad=False,
            beta1=rule.beta1,
            beta2=rule.beta2,
            lr=self.lr,
            weight_decay=rule.weight_decay,
            eps=rule.eps,
            maximize=False,
        )


class Momentum(UpdateRule):
    """torch's SGD."""

    def __init__(self, weights: Iterable[Tensor], description: SGD) -> None:
        super().__init__(weights, description.lr)
        self.description = description

    def update(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        rule = self.description
        buffers = [self.state.get(weight, {}).get("momentum_buffer") for weight in weights]
        sgd(
            weights,
            gradients,
            buffers,
            foreach=True,
            weight_decay=rule.weight_decay,
            momentum=rule.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=rule.nesterov,
            maximize=False,
        )
        for weight, buffer in zip(weights, buffers, strict=True):
            if buffer is not None:
                self.state[weight] = {"momentum_buffer": buffer}


class Orthogonalised(UpdateRule):
    """torch's Muon for the matrices inside the blocks, beside AdamW for the other weights."""

    def __init__(self, module: nn.Module, description: Muon) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise RunError(f"torch {torch.__version__} has no Muon; install torch 2.9 or later, or use optimizer=pl.AdamW()")
        named = list(module.named_parameters())
        super().__init__([parameter for _, parameter in named], description.lr)
        inside = [parameter for name, parameter in named if is_orthogonalised(name, parameter)]
        self._others = Adam([parameter for name, parameter in named if not is_orthogonalised(name, parameter)], description)
        self._muon: torch.optim.Optimizer | None = None
        if inside:
            self._muon = torch.optim.Muon(
                inside,
                lr=description.lr,
                momentum=description.momentum,
                weight_decay=description.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            self.state = self._muon.state
        self._others.state = self.state

    def step(self) -> None:
        """Change each weight that has a gradient."""
        self._others.lr = self.lr
        self._others.step()
        if self._muon is not None:
            for group in self._muon.param_groups:
                group["lr"] = self.lr
            self._muon.step()
