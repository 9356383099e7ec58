"""What a worker remembers of one round until it and its neighbours have made the step."""

from dataclasses import dataclass, field

from pluralis_lab.learning.payload import Payload
from pluralis_lab.learning.tasks import InspectDone
from pluralis_lab.worker.messages import Activation, Committed, Contribution, Gradient, Have, Item

Part = tuple[str, str]
"""One replica's contribution to a step: (worker, digest of its gradient)."""

Parts = tuple[Part, ...]
"""The contributions a step is made from, sorted."""

Joiners = tuple[tuple[str, int, bool], ...]
"""Who is admitted with a step: (worker, incarnation, whether it is on trial), sorted."""


@dataclass
class RoundState:
    """One round at one worker.

    Flow (one entry a micro-batch index): `begun` here; `senders` of its activation, the one whose bytes were used first, and
    until these turn out to be sound, `spares`, what the others sent; `sent` and `sent_to`, the own output and who got it;
    `returned`, the own gradient for the previous stage; `loss` on the tail; `accepted`, whose gradient has come back;
    `passed_on`, computed only for the stage before: after this one's step, or, as long as that one lives, because another
    replica has counted it (`yielded`, with the sender and what it sent).
    Own data: `own`, indices that the first sender's head drew from its own corpus; `drawn`, the ids that each is made of;
    `redrawn`, indices that somebody said to have been drawn otherwise, and who.
    Receipts: `used_forward` and `used_backward`, the signed items that were consumed here first and are not counter-signed
    yet, by worker.
    Commit: `counted` here, what of it was `told`, and `peers_counted` elsewhere in the stage; `contributions` as they came, also
    such as were replaced later; `unusable`, those that cannot be computed with, which nobody steps with; `delay`, how late the
    own sum's gradients were, in steps, and where replicas train locally its `norm`; `fetching`, what was asked for of whom;
    `have`, announced here, and `haves` by live replica; `next_haves`, workers of the next stage that hold all of theirs, and whom
    they would let in, and `next_stepped`, those that step;
    `inspected`, the measured parts; `decisions`, what each replica says that it has stepped with, and `decided`, the one of them
    to follow; `applying`, what this one steps with.
    """

    round: int
    begun: set[int] = field(default_factory=set)
    senders: dict[int, list[str]] = field(default_factory=dict)
    spares: dict[int, list[tuple[str, Activation]]] = field(default_factory=dict)
    sent: dict[int, Activation] = field(default_factory=dict)
    sent_to: dict[int, str] = field(default_factory=dict)
    returned: dict[int, Gradient] = field(default_factory=dict)
    loss: dict[int, float] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    claimed: set[int] = field(default_factory=set)
    passed_on: set[int] = field(default_factory=set)
    yielded: dict[int, tuple[str, Activation]] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)
    drawn: dict[int, Payload] = field(default_factory=dict)
    redrawn: set[tuple[int, str]] = field(default_factory=set)
    used_forward: dict[str, list[Item]] = field(default_factory=dict)
    used_backward: dict[str, list[Item]] = field(default_factory=dict)

    counted: set[int] = field(default_factory=set)
    told: frozenset[int] = frozenset()
    peers_counted: dict[str, set[int]] = field(default_factory=dict)
    collecting: frozenset[int] = frozenset()
    contributions: dict[Part, Contribution] = field(default_factory=dict)
    unusable: set[Part] = field(default_factory=set)
    fetching: set[tuple[str, Part]] = field(default_factory=set)
    inspecting: Parts | None = None
    inspected: tuple[Parts, InspectDone] | None = None
    have: Have | None = None
    haves: dict[str, Have] = field(default_factory=dict)
    next_haves: dict[str, Joiners] = field(default_factory=dict)
    decisions: dict[str, Committed] = field(default_factory=dict)
    decided: Committed | None = None
    applying: Committed | None = None
    delay: float = 0.0
    norm: float | None = None
    is_committed: bool = False
    previous_committed: bool = False
    next_committed: bool = False
    next_stepped: set[str] = field(default_factory=set)
    peers_committed: set[str] = field(default_factory=set)

    def covers(self, parts: Parts, num_micro_batches: int) -> bool:
        """Whether `parts`, which are here, hold each micro-batch of the round exactly once."""
        indices = sorted(index for part in parts for index in self.contributions[part].item["indices"])
        return indices == list(range(num_micro_batches))
