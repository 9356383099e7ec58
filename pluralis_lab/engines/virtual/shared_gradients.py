"""The gradients of a stage whose replicas are all in one process: what follows from the same bytes is computed once."""

from collections.abc import Sequence

from torch import Tensor

from pluralis_lab.learning import tasks
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.round_gradients import RoundGradients

_Asked = tuple[int, tuple[tuple[str, tuple[int, ...], str], ...]]
"""A round, and of each part its worker, indices and digest."""


class SharedGradients(RoundGradients):
    """The `RoundGradients` of all replicas of a stage: whoever asks first computes, and the others get the same bits."""

    def __init__(self, format: FlatFormat, size: int) -> None:
        super().__init__(format, size)
        self._inspected: dict[_Asked, tasks.InspectDone] = {}
        self._means: dict[_Asked, Tensor] = {}

    def inspect(self, round_: int, parts: Sequence[tasks.Part]) -> tasks.InspectDone:
        asked = _asked(round_, parts)
        if asked not in self._inspected:
            self._inspected[asked] = super().inspect(round_, parts)
        return self._inspected[asked]

    def mean(self, round_: int, parts: Sequence[tasks.Part], *, num_micro_batches: int) -> Tensor:
        asked = _asked(round_, parts)
        if asked not in self._means:
            self._means[asked] = super().mean(round_, parts, num_micro_batches=num_micro_batches)
        return self._means[asked].clone()  # an optimizer may write into the gradient that it steps with

    def forget_before(self, round_: int) -> None:
        """Drop what belongs to the rounds before, but for the last: one replica has made that step, and others will."""
        super().forget_before(round_ - 1)
        self._inspected = {asked: done for asked, done in self._inspected.items() if asked[0] >= round_ - 1}
        self._means = {asked: mean for asked, mean in self._means.items() if asked[0] >= round_ - 1}


def _asked(round_: int, parts: Sequence[tasks.Part]) -> _Asked:
    return round_, tuple((part.worker, part.indices, part.gradient.digest) for part in parts)
