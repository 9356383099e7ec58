"""In which rounds a run's subspace turns: a function of the spec alone, without torch."""

from pluralis_lab.parts import Subspace
from pluralis_lab.spec import RunSpec


def is_refreshed(spec: RunSpec) -> bool:
    """Say whether the run's subspace ever turns."""
    return isinstance(spec.boundary, Subspace) and spec.boundary.refresh_every is not None


def gathers(spec: RunSpec, round_: int) -> bool:
    """Say whether the tail adds up S in `round_`; not where no round would be left to train after the turn."""
    if not isinstance(spec.boundary, Subspace) or spec.boundary.refresh_every is None:
        return False
    return round_ >= 0 and (round_ + 1) % spec.boundary.refresh_every == 0 and round_ + 2 < spec.steps


def switches(spec: RunSpec, round_: int) -> bool:
    """Say whether all stages turn with the step of `round_`."""
    return gathers(spec, round_ - 1)


def basis_version(spec: RunSpec, round_: int) -> int:
    """Return how often the subspace has turned before `round_`."""
    if not isinstance(spec.boundary, Subspace) or spec.boundary.refresh_every is None:
        return 0
    return max(0, min(round_ - 1, spec.steps - 2)) // spec.boundary.refresh_every
