"""Copies of a stage's weights, as micro-batches went forward with them: what `schedule="async"` goes backward through.

Weight stashing, PipeDream (arXiv 1806.03377): without it a micro-batch that returns after a step would be differentiated at
other weights than it saw. Copies are reused, so there are at most as many as there were versions under way at once. What no step
changes, a frozen embedding say, is not copied: a stage's blocks leave their buffers as they are (`models.measuring`).
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
    max_idle : copies kept for later that nobody uses at present; None: all that were made
    """

    def __init__(self, master: Stage, *, max_idle: int | None = None) -> None:
        self._master, self._weights, self._max_idle = master, _weights(master), max_idle
        self._newest: StashedStage | None = None
        self._free: list[StashedStage] = []
        self.num_copies = 0
        """Copies that there are."""

    def take(self) -> StashedStage:
        """Return a copy with the master's present weights; `give_back` it when the micro-batch has come back."""
        if self._newest is None:
            self._newest = self._free.pop() if self._free else self._copy()
            with torch.no_grad():
                torch._foreach_copy_(self._newest.weights, self._weights)
            if self._master.basis is not None:
                self._newest.module.take_basis(self._master.basis)
        return self.take_again(self._newest)

    def take_again(self, stashed: StashedStage) -> StashedStage:
        """Return `stashed`, which somebody has in use or which is the newest, to be given back once more."""
        stashed.num_users += 1
        return stashed

    def is_newest(self, stashed: StashedStage) -> bool:
        """Say whether `stashed` has the master's present weights."""
        return stashed is self._newest

    def give_back(self, stashed: StashedStage) -> None:
        """Note that one micro-batch less is under way with `stashed`."""
        stashed.num_users -= 1
        if stashed.num_users == 0 and stashed is not self._newest:
            self._free.append(stashed)
        self._drop_idle()

    def forget_newest(self) -> None:
        """Note that the master's weights have changed."""
        if self._newest is not None and self._newest.num_users == 0:
            self._free.append(self._newest)
        self._newest = None
        self._drop_idle()

    def _drop_idle(self) -> None:
        """Give up copies beyond `max_idle`, of which one with the newest weights is the last to go."""
        if self._max_idle is None:
            return
        newest_is_idle = self._newest is not None and self._newest.num_users == 0
        while self._free and len(self._free) + newest_is_idle > self._max_idle:
            self._free.pop()
            self.num_copies -= 1

    def _copy(self) -> StashedStage:
        self.num_copies += 1
        module = copy.deepcopy(self._master, {id(buffer): buffer for buffer in self._master.buffers()})
        return StashedStage(module, _weights(module))


def _weights(module: Stage) -> list[Tensor]:
    return list(module.parameters())
