"""Workers that come and go in a simulation: who is away when."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from pluralis_lab.errors import RunSpecError
from pluralis_lab.markup import table
from pluralis_lab.spec import RunSpec, worker_name


@dataclass(frozen=True)
class Absence:
    """`worker` dies `at_s` virtual seconds after the start, without a good-bye, and comes back `for_s` later (None: never).

    It comes back empty and joins: a replica sends it its stage's state.

    frozen : it does not die, but stands still for `for_s` seconds, as after SIGSTOP, and then goes on; the others wait for it, or
    go on without it and take it back
    """

    worker: str
    at_s: float
    for_s: float | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.at_s < math.inf:
            raise RunSpecError(f"at_s={self.at_s!r} of {self.worker}; give virtual seconds after the start, 0 or more")
        if self.for_s is not None and not 0 < self.for_s < math.inf:
            raise RunSpecError(f"for_s={self.for_s!r} of {self.worker}; give virtual seconds above 0, or None for ever")
        if self.frozen and self.for_s is None:
            raise RunSpecError(f"{self.worker} is frozen for ever; give for_s, virtual seconds after which it goes on")

    def _repr_html_(self) -> str:
        return Churn((self,))._repr_html_()


@dataclass(frozen=True)
class Churn:
    """All absences of a simulation.

    Example
    -------
    >>> pl.Churn([pl.Absence("worker-3", at_s=12, for_s=5)])
    >>> pl.Churn([pl.Absence("worker-3", at_s=12, for_s=20, frozen=True)])
    >>> pl.Churn.drawn(spec, deaths=28, within_s=300, for_s=10)
    """

    absences: Sequence[Absence] = ()

    def __post_init__(self) -> None:
        for absence in self.absences:
            if not isinstance(absence, Absence):
                raise RunSpecError(f"absences has {absence!r:.80}; give pl.Absence(worker, at_s, for_s)")
        object.__setattr__(self, "absences", tuple(sorted(self.absences, key=lambda absence: (absence.at_s, absence.worker))))

    @classmethod
    def drawn(cls, spec: RunSpec, *, deaths: int, within_s: float, for_s: float, seed: int = 0) -> "Churn":
        """Draw `deaths` of workers of `spec` at random moments from 0 to `within_s` virtual seconds, each back after `for_s`.

        Nobody is taken whose stage would have nobody left then, with as long again for the one that comes back to join: a stage
        that is empty ends a run. Raises RunSpecError when so many deaths do not fit.
        """
        rng = random.Random(f"churn {seed}")
        away: list[tuple[float, int]] = []
        for _ in range(1000 * deaths):
            if len(away) == deaths:
                break
            at_s, number = rng.uniform(0, within_s), rng.randrange(spec.num_workers)
            near = {other for when, other in away if abs(when - at_s) < 2 * for_s}
            mates = {other for other in near if other // spec.replicas == number // spec.replicas}
            if number not in near and len(mates) < spec.replicas - 1:
                away.append((at_s, number))
        if len(away) < deaths:
            raise RunSpecError(
                f"{deaths} deaths of {spec.replicas} replicas in {within_s:g} s, each {for_s:g} s long, would empty a stage; "
                "draw fewer or shorter ones, or over a longer time"
            )
        return cls([Absence(worker_name(number), at_s, for_s) for at_s, number in away])

    def check_workers(self, names: Sequence[str]) -> None:
        """Raise RunSpecError for an absence of a worker that is none of `names`."""
        for absence in self.absences:
            if absence.worker not in names:
                raise RunSpecError(f"churn names {absence.worker!r}; the run has {', '.join(names)}")

    def _repr_html_(self) -> str:
        rows = [
            (
                one.worker,
                "stands still" if one.frozen else "dies",
                f"{one.at_s:.3g} s",
                "for good" if one.for_s is None else f"{one.for_s:.3g} s",
            )
            for one in self.absences
        ]
        return table("Churn", ("worker", "what", "at", "away"), rows)
