"""What a worker remembers of one round until it and its neighbours have made the step."""

from dataclasses import dataclass, field

from pluralis_lab.learning.tasks import InspectDone
from pluralis_lab.worker.messages import Activation, Contribution, Gradient, Have, Item

Parts = tuple[tuple[str, str], ...]
"""The contributions a step is made from: (worker, digest of its gradient), sorted."""


@dataclass
class RoundState:
    """One round at one worker.

    Flow (one entry a micro-batch index): `route`; `source`, who sent its activation; `sent` and `sent_to`, the own output and who
    got it; `returned`, the own gradient for the previous stage; `loss` on the tail; `accepted`, whose gradient has come back.
    Receipts: `used_forward` and `used_backward`, the signed items that were consumed here first and are not counter-signed
    yet, by worker.
    Commit: `counted` here and `peers_counted` elsewhere in the stage; `contributions` and `haves` by worker;
    `inspected`, the measured parts; `decided`, parts that a replica has already stepped with.
    """

    round: int
    route: dict[int, tuple[str, ...]] = field(default_factory=dict)
    source: dict[int, str] = field(default_factory=dict)
    sent: dict[int, Activation] = field(default_factory=dict)
    sent_to: dict[int, str] = field(default_factory=dict)
    returned: dict[int, Gradient] = field(default_factory=dict)
    loss: dict[int, float] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    claimed: set[int] = field(default_factory=set)
    used_forward: dict[str, list[Item]] = field(default_factory=dict)
    used_backward: dict[str, list[Item]] = field(default_factory=dict)

    counted: set[int] = field(default_factory=set)
    peers_counted: dict[str, set[int]] = field(default_factory=dict)
    collecting: frozenset[int] = frozenset()
    contributions: dict[str, Contribution] = field(default_factory=dict)
    inspecting: Parts | None = None
    inspected: tuple[Parts, InspectDone] | None = None
    have: Have | None = None
    haves: dict[str, Have] = field(default_factory=dict)
    decided: Parts | None = None
    fetching: set[str] = field(default_factory=set)
    applying: Parts | None = None
    is_committed: bool = False
    previous_committed: bool = False
    next_committed: bool = False
    peers_committed: set[str] = field(default_factory=set)
