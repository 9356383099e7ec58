"""The weight gradients of a round that are here, this replica's own and the others': each read and judged once."""

from collections.abc import Mapping

from torch import Tensor

from pluralis_lab.contributions.agreement import measure
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.refreshing import Refreshing
from pluralis_lab.learning.usable import check_usable, largest_usable


class RoundGradients:
    """Flat gradients by digest, until the round's step is made.

    format : how they are written on the wire
    size : weights of the stage
    refreshing : judges what comes beside a gradient
    """

    def __init__(self, format: FlatFormat, size: int, refreshing: Refreshing) -> None:
        self._format, self._size, self._refreshing = format, size, refreshing
        self._held: dict[str, Tensor] = {}
        self._usable: set[str] = set()

    def keep(self, digest: str, gradient: Tensor) -> None:
        """Keep this replica's own `gradient` `[size]`."""
        self._held[digest] = gradient

    def own(self, digest: str) -> Tensor:
        """Return what `keep` was given."""
        return self._held[digest]

    def of(self, parts: tuple[tasks.Part, ...], round_: int) -> dict[str, Tensor]:
        """Return the gradients of `parts` by worker. Raises WireError for one that cannot be computed with."""
        gradients = {part.worker: self._read(part, round_) for part in parts}
        for part in parts:
            self._check(part, gradients[part.worker], round_, norm=None)
        return gradients

    def inspect(self, task: tasks.Inspect) -> tasks.InspectDone:
        """Return norms and agreements; or which of the parts cannot be computed with, and why."""
        gradients: dict[str, Tensor] = {}
        unusable: dict[str, str] = {}
        for part in task.parts:
            try:
                gradients[part.worker] = self._read(part, task.round)
            except WireError as error:
                unusable[part.worker] = str(error)
        norms, cosines = measure({worker: [gradient.numpy()] for worker, gradient in gradients.items()})
        for part in task.parts:
            if part.worker in gradients:
                try:
                    self._check(part, gradients[part.worker], task.round, norm=norms[part.worker])
                except WireError as error:
                    unusable[part.worker] = str(error)
        return tasks.InspectDone({}, {}, unusable) if unusable else tasks.InspectDone(norms, cosines)

    def clear(self) -> None:
        """Forget all: the step is made."""
        self._held.clear()
        self._usable.clear()

    def _read(self, part: tasks.Part, round_: int) -> Tensor:
        """Return the part's gradient. Raises WireError for one that is not of this stage's size, or with false things beside."""
        digest = part.gradient.digest
        if digest not in self._held:
            try:
                self._refreshing.check(round_, beside(part))
                self._held[digest] = self._format.read(part.gradient.first(1), self._size)
            except WireError as error:
                raise WireError(f"the gradient of {part.worker}: {error}; this stage has {self._size} weights") from error
        return self._held[digest]

    def _check(self, part: tasks.Part, gradient: Tensor, round_: int, *, norm: float | None) -> None:
        """Raise WireError for numbers that cannot be computed with. Dear beside a `norm`, which tells as much if it is small."""
        digest = part.gradient.digest
        if digest not in self._usable and (norm is None or norm > largest_usable(gradient.dtype)):
            check_usable(gradient, f"what {part.worker} sent in round {round_}")
        self._usable.add(digest)


def beside(part: tasks.Part) -> Mapping[str, Tensor]:
    """Return what the part carries behind its gradient."""
    if len(part.gradient.layout) < 2:
        return {}
    return dict(list(part.gradient.tensors().items())[1:])
