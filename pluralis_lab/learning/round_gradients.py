"""The gradients that the replicas of a stage step with: read from their bytes, measured, refused or averaged."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pluralis_lab.contributions.agreement import measure
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.aggregation import weighted_mean
from pluralis_lab.learning.flat_format import FlatFormat


class RoundGradients:
    """Replicas' gradients by round and digest: each is read from its bytes once, and looked through for NaN once.

    Parameters
    ----------
    format : how they are written
    size : weights of the stage
    """

    def __init__(self, format: FlatFormat, size: int) -> None:
        self.format, self.size = format, size
        self._held: dict[tuple[int, str], Tensor] = {}
        self._finite: set[tuple[int, str]] = set()

    def keep(self, round_: int, digest: str, gradient: Tensor) -> None:
        """Take this replica's own flat `gradient`, as the others will read it."""
        self._held[round_, digest] = gradient

    def inspect(self, round_: int, parts: Sequence[tasks.Part]) -> tasks.InspectDone:
        """Measure `parts`. Raises WireError for one that is not of this stage's size, and for NaN or infinity."""
        norms, cosines = measure({part.worker: [self._read(round_, part).numpy()] for part in parts})
        for part in parts:
            if norms[part.worker] is None:
                self._require_finite(round_, part)
            self._finite.add((round_, part.gradient.digest))
        return tasks.InspectDone(norms=norms, agreements=cosines)

    def mean(self, round_: int, parts: Sequence[tasks.Part], *, num_micro_batches: int) -> Tensor:
        """Return the flat gradient of the round's mean loss, whose memory is the caller's. Raises WireError as `inspect`."""
        gradients = {part.worker: self._read(round_, part) for part in parts}
        for part in parts:
            self._require_finite(round_, part)
        counts = {part.worker: len(part.indices) for part in parts}
        return weighted_mean(gradients, counts, total=num_micro_batches)

    def forget_before(self, round_: int) -> None:
        """Drop what belongs to the rounds before."""
        self._held = {key: gradient for key, gradient in self._held.items() if key[0] >= round_}
        self._finite = {key for key in self._finite if key[0] >= round_}

    def _read(self, round_: int, part: tasks.Part) -> Tensor:
        key = round_, part.gradient.digest
        if key not in self._held:
            try:
                self._held[key] = self.format.read(part.gradient.first(1), self.size)
            except WireError as error:
                raise WireError(f"the gradient of {part.worker}: {error}; this stage has {self.size} weights") from error
        return self._held[key]

    def _require_finite(self, round_: int, part: tasks.Part) -> None:
        """Raise WireError for NaN or infinity. Dear beside a norm, which tells as much unless it is infinite."""
        if (round_, part.gradient.digest) not in self._finite and not torch.isfinite(self._read(round_, part)).all():
            raise WireError(f"{part.worker} sent NaN or infinity in round {round_}; lower the learning rate or find the fault")
