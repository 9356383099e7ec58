"""The weight gradients that the replicas of a stage step with: each read from its bytes, judged and measured once."""

from collections.abc import Sequence

from torch import Tensor

from pluralis_lab.contributions.agreement import measure
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.aggregation import weighted_mean
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.usable import check_usable, largest_gradient


class RoundGradients:
    """Flat gradients by round and digest, until the round's step is made.

    Parameters
    ----------
    format : how they are written
    size : weights of the stage
    """

    def __init__(self, format: FlatFormat, size: int) -> None:
        self.format, self.size = format, size
        self._held: dict[tuple[int, str], Tensor] = {}
        self._usable: set[tuple[int, str]] = set()

    def keep(self, round_: int, digest: str, gradient: Tensor) -> None:
        """Take this replica's own flat `gradient`, as the others will read it."""
        self._held[round_, digest] = gradient

    def inspect(self, round_: int, parts: Sequence[tasks.Part]) -> tasks.InspectDone:
        """Return norms and agreements of `parts`; or which of them cannot be computed with, and why."""
        gradients: dict[str, Tensor] = {}
        unusable: dict[str, str] = {}
        for part in parts:
            try:
                gradients[part.worker] = self._read(round_, part)
            except WireError as error:
                unusable[part.worker] = str(error)
        norms, cosines = measure({worker: [gradient.numpy()] for worker, gradient in gradients.items()})
        for part in parts:
            if part.worker in gradients:
                try:
                    self._check(round_, part, norm=norms[part.worker])
                except WireError as error:
                    unusable[part.worker] = str(error)
        return tasks.InspectDone({}, {}, unusable) if unusable else tasks.InspectDone(norms, cosines)

    def mean(self, round_: int, parts: Sequence[tasks.Part], *, num_micro_batches: int) -> Tensor:
        """Return the flat gradient of the round's mean loss, whose memory is the caller's.

        Raises WireError for a part that cannot be computed with.
        """
        gradients = {part.worker: self._read(round_, part) for part in parts}
        for part in parts:
            self._check(round_, part, norm=None)
        counts = {part.worker: len(part.indices) for part in parts}
        return weighted_mean(gradients, counts, total=num_micro_batches)

    def forget_before(self, round_: int) -> None:
        """Drop what belongs to the rounds before."""
        self._held = {key: gradient for key, gradient in self._held.items() if key[0] >= round_}
        self._usable = {key for key in self._usable if key[0] >= round_}

    def _read(self, round_: int, part: tasks.Part) -> Tensor:
        """Return the part's gradient. Raises WireError for one that is not of this stage's size."""
        key = round_, part.gradient.digest
        if key not in self._held:
            try:
                self._held[key] = self.format.read(part.gradient.first(1), self.size)
            except WireError as error:
                raise WireError(f"the gradient of {part.worker}: {error}; this stage has {self.size} weights") from error
        return self._held[key]

    def _check(self, round_: int, part: tasks.Part, *, norm: float | None) -> None:
        """Raise WireError for numbers that cannot be computed with. Dear beside a `norm`, which tells as much if it is small."""
        key = round_, part.gradient.digest
        gradient = self._read(round_, part)
        if key not in self._usable and (norm is None or norm > largest_gradient(gradient.dtype)):
            check_usable(gradient, f"what {part.worker} sent in round {round_}", largest=largest_gradient)
        self._usable.add(key)
