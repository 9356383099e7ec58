"""What workers say to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pluralis_lab import canonical
from pluralis_lab.learning.payload import Payload

Item = dict[str, Any]
"""A signed work item as `contributions.receipts.sign_work` makes it."""


Tables = tuple[tuple[int, tuple[tuple[int, int, int | None], ...]], ...]
"""How a stage deals micro-batches out, by the first round of each change (`lanes.Table`)."""

COMMITMENT_LAYOUT = (("h", "u1", (32,)),)
"""Of the hash that stands for a weight gradient where replicas train locally."""


@dataclass(frozen=True)
class Hello:
    """I am here. `since` is the first round I take work in, None while I join; `answer` asks for a Hello in return."""

    stage: int
    replica: int
    key: str
    incarnation: int
    since: int | None
    answer: bool


@dataclass(frozen=True)
class Activation:
    """A stage's output for micro-batch `index`. `own`: the head drew it from a corpus of its own."""

    round: int
    index: int
    item: Item
    payload: Payload
    own: bool = False


@dataclass(frozen=True)
class Drawn:
    """That micro-batch of yours is here already, made of these ids: somebody drew it before you. Make it of them."""

    round: int
    index: int
    payload: Payload


@dataclass(frozen=True)
class Gradient:
    """The loss's derivative by the activation of micro-batch `index`."""

    round: int
    index: int
    item: Item
    payload: Payload


@dataclass(frozen=True)
class Counted:
    """I have the weight gradients of exactly these `indices` of the round (to replicas of my stage)."""

    round: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Contribution:
    """`worker`'s summed weight gradient over the item's indices, and on the tail their summed `loss`; relayed by `Fetch`.

    `pace` is the level of the worker's seconds a micro-batch (`lanes`), None while it does not know.
    """

    round: int
    worker: str
    loss: float | None
    pace: int | None
    item: Item
    payload: Payload


@dataclass(frozen=True)
class Piece:
    """One chunk of my weight gradient, whose contribution has this `digest` and the chunk's hash: to whoever adds it up."""

    round: int
    digest: str
    chunk: int
    payload: Payload


@dataclass(frozen=True)
class FetchPiece:
    """Send me that chunk of your contribution: I check what somebody says that it adds up to."""

    round: int
    digest: str
    chunk: int


@dataclass(frozen=True)
class Reduced:
    """What that chunk of the contributions `parts` (worker, digest) adds up to, as found `by` the sender or by whom it relays."""

    round: int
    parts: tuple[tuple[str, str], ...]
    chunk: int
    by: str
    payload: Payload


@dataclass(frozen=True)
class FetchReduced:
    """Send me the sums of all chunks that you hold: who would have sent them may be gone."""

    round: int


@dataclass(frozen=True)
class Have:
    """I hold the contributions `parts` (worker, digest), which cover the round; I would admit `joiners`.

    Of each joiner: worker, incarnation, and whether it is on trial (`Join`). `sums`: where replicas add up for each other, the
    digest of what I hold of the parts (`chunks.sums_digest`).

    To replicas of my stage, who step when all say the same; and to the stage before, which until then keeps what it sent.
    """

    round: int
    parts: tuple[tuple[str, str], ...]
    joiners: tuple[tuple[str, int, bool], ...]
    sums: str = ""


@dataclass(frozen=True)
class Fetch:
    """Send me `worker`'s contribution of the round, which I miss."""

    round: int
    worker: str


@dataclass(frozen=True)
class Committed:
    """My stage has made the step of `round` from `parts` and admitted `joiners`: what was kept for it may go.

    `lanes`, for the stage before: how micro-batches are dealt out here from the first round on that nobody has dealt yet.
    """

    round: int
    parts: tuple[tuple[str, str], ...]
    joiners: tuple[tuple[str, int, bool], ...] = ()
    lanes: tuple[tuple[int, int, int | None], ...] = ()


@dataclass(frozen=True)
class Displacement:
    """How far `worker` came until after `round` since the exchange before, with a signed item for each round it counted in.

    `wish`: rounds that it would give the next exchange. Relayed by `FetchDisplacement`; so that nobody can tell another one in
    its author's name, or leave some of its work out, `seal` is an item over all of it (kind "local_step", of no micro-batch).
    """

    round: int
    worker: str
    wish: int
    items: tuple[tuple[int, Item], ...]
    seal: Item
    payload: Payload

    @property
    def digest(self) -> str:
        """What the replicas agree on, and the author seals: 64 hexadecimal digits."""
        return displacement_digest(self.wish, [(round_, item["indices"]) for round_, item in self.items], self.payload)


def displacement_digest(wish: int, counted: Sequence[tuple[int, Sequence[int]]], payload: Payload) -> str:
    """Return the digest of a displacement: of its bytes, of what was counted on the way and of the wish that goes along."""
    said = [payload.digest, wish, [[round_, list(indices)] for round_, indices in counted]]
    return canonical.digest(canonical.canonical_json(said))


@dataclass(frozen=True)
class Gathered:
    """I hold the displacements `parts` (worker, digest) of the exchange after `round` (to replicas of my stage)."""

    round: int
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Merged:
    """The exchange after `round` is decided: it is made of `parts`."""

    round: int
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FetchDisplacement:
    """Send me `worker`'s displacement of the exchange after `round`, which I miss."""

    round: int
    worker: str


@dataclass(frozen=True)
class Join:
    """I hold no state: admit me to the stage and send me its state.

    `on_trial`: before this incarnation I was set aside, so deal me one micro-batch until I have answered.
    """

    incarnation: int
    on_trial: bool


@dataclass(frozen=True)
class StateOffer:
    """Here is the stage's state after `version` rounds, a safetensors file of `size_bytes`, for an admitted joiner to fetch.

    `hashes` are the SHA-256 of its chunks (`learning.state_chunks`), 32 bytes each; `digest` is that of all.
    `lanes` is how micro-batches are dealt out in the stage, and `next_lanes` in the next one, as all know who deal there; and
    `peers` who takes part in either: (worker, incarnation, first round, whether it has begun).
    """

    version: int
    digest: str
    lanes: Tables
    size_bytes: int
    hashes: bytes
    next_lanes: Tables = ()
    peers: tuple[tuple[str, int, int, bool], ...] = ()


@dataclass(frozen=True)
class FetchState:
    """Send me these chunks of the state that you have offered."""

    version: int
    digest: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class StateChunk:
    """Chunk `index` of the state after `version` rounds."""

    version: int
    digest: str
    index: int
    data: bytes


@dataclass(frozen=True)
class Lost:
    """This incarnation of `worker` is gone."""

    worker: str
    incarnation: int


@dataclass(frozen=True)
class Ping:
    """Are you there? (to replicas of my stage)"""

    number: int


@dataclass(frozen=True)
class Pong:
    """I am, as you asked in the Ping of that `number`: I have done so many tasks, and have so many more to do."""

    number: int
    done: int
    waiting: int


@dataclass(frozen=True)
class EvalActivation:
    """A stage's output for validation micro-batch `index` at `version` completed rounds; the tail answers `origin`."""

    version: int
    index: int
    origin: str
    payload: Payload


@dataclass(frozen=True)
class EvalDone:
    """The summed validation `loss` over `tokens` targets."""

    version: int
    index: int
    loss: float
    tokens: int


@dataclass(frozen=True)
class ProbeActivation:
    """A stage's output for held-out micro-batch `index`, for the loss that somebody asked `origin` for."""

    request: str
    index: int
    origin: str
    payload: Payload


@dataclass(frozen=True)
class ProbeDone:
    """The summed `loss` of that micro-batch over `tokens` targets."""

    request: str
    index: int
    loss: float
    tokens: int


@dataclass(frozen=True)
class ProbeMislaid:
    """I have nobody to pass that held-out micro-batch on to: ask again."""

    request: str
    index: int
    reason: str


@dataclass(frozen=True)
class InferActivation:
    """A stage's output for the positions after the first `start` of the text `request`, begun for the `attempt`-th time.

    The tail draws the token at `position` with `temperature` and `seed`, and tells `origin`.
    """

    request: str
    attempt: int
    origin: str
    start: int
    position: int
    temperature: float
    seed: int
    payload: Payload


@dataclass(frozen=True)
class Token:
    """The text goes on with `token` at `position`."""

    request: str
    attempt: int
    position: int
    token: int


@dataclass(frozen=True)
class Mislaid:
    """I have no cache of that attempt, or nobody to pass it on to: begin the text anew."""

    request: str
    attempt: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """That attempt at the text `request` is over: forget what its attention has seen, and tell the stage after yours."""

    request: str
    attempt: int


Message = (
    Hello
    | Activation
    | Drawn
    | Gradient
    | Counted
    | Contribution
    | Piece
    | FetchPiece
    | Reduced
    | FetchReduced
    | Have
    | Fetch
    | Committed
    | Displacement
    | Gathered
    | Merged
    | FetchDisplacement
    | Join
    | StateOffer
    | FetchState
    | StateChunk
    | Lost
    | Ping
    | Pong
    | EvalActivation
    | EvalDone
    | ProbeActivation
    | ProbeDone
    | ProbeMislaid
    | InferActivation
    | Token
    | Mislaid
    | Ended
)
