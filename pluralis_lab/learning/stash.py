"""Copies of a stage's weights, as micro-batches went forward with them: what `schedule="async"` goes backward through.

Weight stashing, PipeDream (arXiv 1806.03377): without it a micro-batch that returns after a step would be differentiated at
other weights than it saw. Copies are reused, so there are at most as many as there were versions under way at once.
"""

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pluralis_lab.models.stage import Stage


@dataclass
class StashedStage:
    """A copy of the stage, and how many micro-batches are under way with it."""

    module: Stage
    weights: list[Tensor] = field(repr=False)
    num_users: int = 0


class WeightStash:
    """Hands out the newest weights to go forward with.

    master : the stage that the optimizer changes in place
    """

    def __init__(self, master: Stage) -> None:
        self._master, self._weights = master, _weights(master)
        self._newest: StashedStage | None = None
        self._free: list[StashedStage] = []
        self.num_copies = 0

    def take(self) -> StashedStage:
        """Return a copy with the master's present weights; `give_back` it when the micro-batch has come back."""
        if self._newest is None:
            self._newest = self._free.pop() if self._free else self._copy()
            with torch.no_grad():
                torch._foreach_copy_(self._newest.weights, self._weights)
            if self._master.basis is not None:
                self._newest.module.take_basis(self._master.basis)
        self._newest.num_users += 1
        return self._newest

    def give_back(self, stashed: StashedStage) -> None:
        """Note that one micro-batch less is under way with `stashed`."""
        stashed.num_users -= 1
        if stashed.num_users == 0 and stashed is not self._newest:
            self._free.append(stashed)

    def forget_newest(self) -> None:
        """Note that the master's weights have changed."""
        if self._newest is not None and self._newest.num_users == 0:
            self._free.append(self._newest)
        self._newest = None

    def _copy(self) -> StashedStage:
        self.num_copies += 1
        module = copy.deepcopy(self._master)
        return StashedStage(module, _weights(module))


def _weights(module: Stage) -> list[Tensor]:
    return list(module.parameters())
