"""What a picture of a run is made of: workers, epochs, and marks on the time axis."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from pluralis_lab.phases import HOLDING
from pluralis_lab.views.series import BoundedSeries, Series

LIVE_STATES = HOLDING
COMING_STATES = frozenset({"starting", "joining", "syncing", "aside"})
RECENT_ROUNDS = 20
IDLE_BELOW = 0.05
"""Who computes for less than this share of the time has next to nothing to do."""
IDLE_ROUNDS = 5
"""Nothing is said of who has fewer rounds behind it: it may have come just now."""


@dataclass(frozen=True)
class Mark:
    """Something that happened once and belongs on the time axis: a death, a return, who is set aside, a re-routed micro-batch."""

    kind: str
    round: int
    worker: str
    text: str


@dataclass(frozen=True)
class Epoch:
    """One closed epoch: how its emission was split, and who signed for it."""

    epoch: int
    round: int
    shares: dict[str, float]
    amounts_wei: dict[str, int]
    statements: int
    unpaid: int
    attested_by: tuple[str, ...]


@dataclass
class RecentWork:
    """What a worker did in its last rounds: (time of its report, seconds of compute since the one before, tokens) of each.

    The first report of a life only says from when on to count: what it computed before that, warming up, was no round.
    """

    reports: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=RECENT_ROUNDS + 1))

    def put(self, at: float, compute_s: float, tokens: float) -> None:
        self.reports.append((at, compute_s, tokens))

    @property
    def num_rounds(self) -> int:
        """The rounds that are counted, at most `RECENT_ROUNDS`."""
        return max(0, len(self.reports) - 1)

    @property
    def busy(self) -> float | None:
        """Seconds of compute over seconds of the run's own clock, in [0, 1]; None before there are two reports."""
        wall_s = self.reports[-1][0] - self.reports[0][0] if self.reports else 0.0
        if wall_s <= 0:
            return None
        compute_s = math.fsum(seconds for _, seconds, _ in self.reports) - self.reports[0][1]
        return min(1.0, max(0.0, compute_s / wall_s))

    @property
    def has_little_to_do(self) -> bool:
        """It computed next to nothing, or was dealt no micro-batch, in enough rounds to say so."""
        if self.num_rounds < IDLE_ROUNDS:
            return False
        busy = self.busy
        dealt = any(tokens > 0 for _, _, tokens in list(self.reports)[1:])
        return not dealt or (busy is not None and busy < IDLE_BELOW)


@dataclass
class WorkerPicture:
    """One worker as far as the events tell: where it sits, how it is, and what it has done."""

    name: str
    stage: int = -1
    replica: int = -1
    participant: str = ""
    state: str = "starting"
    reason: str = ""
    device: str = ""
    pid: int | None = None
    incarnation: int = 0
    parameters: int | None = None
    deaths: int = 0
    aside_at: float | None = None
    """When the others went on without it, as long as it is not back."""
    is_awaited: bool = False
    """It was attached, and has not taken part yet."""
    tokens: Series = field(default_factory=Series)
    work_flops: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    agreement: Series = field(default_factory=Series)
    total_tokens: float = 0
    total_work_flops: float = 0.0
    recent: RecentWork = field(default_factory=RecentWork)
    bytes_out: float = 0
    bytes_in: float = 0
    bytes_per_s: float | None = None
    links: dict[str, dict[str, float]] = field(default_factory=dict)
    own_text: tuple[str, str, int] | None = None
    """Name, hash and size in tokens of the text that it brought."""
    own_drawn: dict[str, Series] = field(default_factory=dict)
    """Tokens of texts that heads brought, by head and round, as this worker of stage 1 got them."""
    own_counted: dict[str, float] = field(default_factory=dict)
    """The sum over the rounds of each."""
    delay: float | None = None
    """Steps that the gradients of its last round were late, on average; None under ``schedule="sync"``."""
    exchanges: int = 0
    """Exchanges with the other replicas that were merged, of a rule that trains locally in between."""
    exchanges_waited: int = 0
    """Of those, how many training had to wait for."""
    exchange_late: int | None = None
    """Rounds after which the newest of them that did not have to be merged at once was."""
    round: int | None = None
    heard_at: float | None = None
    _heard: float | None = None
    changes: int = field(default=0, repr=False, compare=False)
    """How often an event has changed this worker, so that what was made of it can be kept until one does."""
    made: tuple[int, int, dict[str, Any]] | None = field(default=None, repr=False, compare=False)
    """(changes, points of a sparkline, payload) of the payload made last."""

    @classmethod
    def bounded(cls, name: str, limit: int) -> WorkerPicture:
        """Return a worker's picture whose curves keep at most `limit` points each."""
        curves = (BoundedSeries(limit) for _ in range(4))
        return cls(name, tokens=next(curves), work_flops=next(curves), grad_norm=next(curves), agreement=next(curves))

    @property
    def is_dead(self) -> bool:
        return self.state == "dead"


def finite(value: Any) -> float | None:
    """Return `value` as a float, or None when it is missing, infinite or not a number."""
    if value is None or isinstance(value, bool):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
