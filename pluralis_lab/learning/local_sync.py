"""Replicas that train on their own between two exchanges: how far each came, and what the exchange makes of it.

All replicas of a stage share an *anchor*: the weights as the exchanges so far have made them. A replica sends its
displacement from it, and moves by what the new anchor differs from its own weights at the time of sending::

    displacement_i = snapshot_i - anchor;   average = Σ n_i displacement_i / Σ n_i   (n_i: micro-batches counted)
    DiLoCo:    v <- μ v - average;   anchor <- anchor - η (μ v - average)      (outer Nesterov step)
    SliceSync: anchor[slice] <- anchor[slice] + average
    w <- w + (anchor - snapshot)

so that steps made between snapshot and average are kept. Sources: DiLoCo, arXiv 2311.08105; SPARTA's slices with the delta rule
of arXiv 2601.22442. Weighting by counted samples follows `FullSync` (algorithms.md, "Sync inside a stage").
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.payload import Payload
from pluralis_lab.learning.usable import check_usable
from pluralis_lab.models.seeded import generator
from pluralis_lab.parts import DiLoCo, SliceSync
from pluralis_lab.spec import RunSpec


class LocalSync:
    """The part of an exchange that is arithmetic, for one replica.

    Parameters
    ----------
    spec : a run whose `sync` is `DiLoCo` or `SliceSync`
    stage : the stage whose slices are drawn
    weights : the stage's parameters, changed in place by `merge`; what they hold now is the first anchor
    """

    def __init__(self, spec: RunSpec, stage: int, weights: Sequence[Tensor]) -> None:
        assert isinstance(spec.sync, DiLoCo | SliceSync)
        self.spec, self.rule, self.stage = spec, spec.sync, stage
        self._weights = weights
        self.anchor = self._flat()
        self.velocity = torch.zeros_like(self.anchor) if isinstance(self.rule, DiLoCo) else None
        self.snapshot: Tensor | None = None
        self.format = FlatFormat(self.rule.payload, self.anchor.dtype)
        self.format.self_test()
        self._slice_of: Tensor | None = None

    def displace(self, round_: int, *, again: bool = False) -> Payload:
        """Remember the weights after `round_`, and return how far its part of them is from the anchor.

        again : of the weights that `load` brought, as they were when that exchange began
        """
        if not again or self.snapshot is None:
            self.snapshot = self._flat()
        part = self._part(round_)
        return self.format.write((self.snapshot - self.anchor)[part])

    def read(self, round_: int, payload: Payload) -> Tensor:
        """Return the displacement that a replica sent. Raises WireError for another layout."""
        return self.format.read(payload, part_size(self.spec, round_, len(self.anchor)))

    def merge(self, round_: int, displacements: Mapping[str, Tensor], counts: Mapping[str, int], *, is_late: bool) -> None:
        """Move the anchor by the replicas' displacements after `round_`, and the weights along with it.

        counts : micro-batches that each replica counted since the exchange before; nothing moves when nobody counted any
        is_late : whether the weights have made steps since `displace`; if not, they become the anchor to the bit
        """
        if self.snapshot is None:
            raise RunError(f"an exchange after round {round_} is merged that never began here; report this as a bug")
        total = sum(counts[worker] for worker in displacements)
        part = self._part(round_)
        if total:
            # In the order of the names, so that every replica gets the same bits.
            terms = [displacements[worker] * (counts[worker] / total) for worker in sorted(displacements)]
            average = torch.stack(terms).sum(dim=0)
            if isinstance(self.rule, DiLoCo):
                assert self.velocity is not None
                self.velocity.mul_(self.rule.outer_momentum).sub_(average)
                self.anchor -= self.rule.outer_lr * (self.rule.outer_momentum * self.velocity - average)
            else:
                self.anchor[part] += average
            moved = self.anchor.clone() if not is_late and self._is_whole(round_) else None
            if moved is None:
                moved = self._flat()
                moved[part] += self.anchor[part] - self.snapshot[part]
            self._load(moved)
        self.snapshot = None

    def abandon(self) -> None:
        """Forget an exchange that nobody can finish any more."""
        self.snapshot = None

    def dump(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to keep, by name."""
        kept = {"anchor": self.anchor, "velocity": self.velocity, "snapshot": self.snapshot}
        return {f"sync/{name}": array.clone() for name, array in kept.items() if array is not None}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `dump` returned.

        Raises WireError, and changes nothing, for anything of another size or number format, or that cannot be computed with.
        """
        found = {name: tensors.get(f"sync/{name}") for name in ("anchor", "velocity", "snapshot")}
        for name, array in found.items():
            may_miss = name == "snapshot" or (name == "velocity" and self.velocity is None)
            if array is None and not may_miss:
                raise WireError(f"a state without 'sync/{name}', which {type(self.rule).__name__} needs")
            if array is not None and (array.shape != self.anchor.shape or array.dtype != self.anchor.dtype):
                raise WireError(
                    f"'sync/{name}' is {tuple(array.shape)} {array.dtype}, expected {len(self.anchor)} {self.anchor.dtype}"
                )
            if array is not None:
                check_usable(array, f"'sync/{name}' of a snapshot")
        assert found["anchor"] is not None
        self.anchor = found["anchor"].clone()
        if self.velocity is not None and found["velocity"] is not None:
            self.velocity = found["velocity"].clone()
        self.snapshot = None if found["snapshot"] is None else found["snapshot"].clone()

    def _part(self, round_: int) -> Tensor | slice:
        """Return which elements the exchange after `round_` is over."""
        if self._is_whole(round_):
            return slice(None)
        assert isinstance(self.rule, SliceSync)
        count = num_slices(self.rule)
        if self._slice_of is None:
            order = generator(self.spec.seed, "slices", self.stage).permutation(len(self.anchor))
            self._slice_of = torch.from_numpy(order % count).to(torch.int32)
        return (self._slice_of == slice_number(self.spec, round_)).nonzero().squeeze(1)

    def _is_whole(self, round_: int) -> bool:
        return is_whole_exchange(self.spec, round_)

    def _flat(self) -> Tensor:
        return torch.cat([weight.detach().flatten().cpu() for weight in self._weights])

    def _load(self, flat: Tensor) -> None:
        offset = 0
        with torch.no_grad():
            for weight in self._weights:
                weight.copy_(flat[offset : offset + weight.numel()].view_as(weight))
                offset += weight.numel()


def num_slices(rule: SliceSync) -> int:
    """Return how many slices the weights are cut into."""
    return math.ceil(1 / rule.fraction)


def is_exchanged(spec: RunSpec, round_: int) -> bool:
    """Whether replicas exchange after `round_`: every so many rounds, and after the last."""
    every = spec.sync_every
    return every is not None and ((round_ + 1) % every == 0 or round_ + 1 == spec.steps)


def is_whole_exchange(spec: RunSpec, round_: int) -> bool:
    """Whether the exchange after `round_` is over all weights: always with `DiLoCo`, and after the last round."""
    return not isinstance(spec.sync, SliceSync) or round_ + 1 == spec.steps or num_slices(spec.sync) == 1


def slice_number(spec: RunSpec, round_: int) -> int:
    """Return which slice `SliceSync` exchanges after `round_`; they rotate."""
    assert isinstance(spec.sync, SliceSync)
    return ((round_ + 1) // spec.sync.every - 1) % num_slices(spec.sync)


def part_size(spec: RunSpec, round_: int, num_weights: int) -> int:
    """Return how many of a stage's `num_weights` the exchange after `round_` is over."""
    if is_whole_exchange(spec, round_):
        return num_weights
    assert isinstance(spec.sync, SliceSync)
    count = num_slices(spec.sync)
    return (num_weights - slice_number(spec, round_) + count - 1) // count
