"""The arithmetic a worker can ask for, as plain data: what `StageCompute.run` executes, in a thread or in virtual time."""

import math
from dataclasses import dataclass, field

from pluralis_lab.learning.payload import Payload


@dataclass(frozen=True)
class Forward:
    """Run micro-batch `index` of `round` forward; the tail also computes the loss and the backward pass.

    `inputs` is what came over the boundary; None on the head, which draws the micro-batch from the corpus itself, or makes it of
    the ids that somebody has `drawn` before it.
    `counts`: its weight gradient goes into the round's sum; False where that sum is closed, and another stage still wants the
    gradient of its input.
    """

    round: int
    index: int
    inputs: Payload | None
    counts: bool = True
    drawn: Payload | None = None


@dataclass(frozen=True)
class ForwardDone:
    """`output` for the next stage, or on the tail the summed `loss` in nats and the `gradient` for the previous stage.

    `own`: this head drew it from its own corpus.
    """

    output: Payload | None = None
    loss: float | None = None
    gradient: Payload | None = None
    own: bool = False


@dataclass(frozen=True)
class Backward:
    """Run micro-batch `index` backward from the `gradient` of this stage's output."""

    round: int
    index: int
    gradient: Payload
    counts: bool = True


@dataclass(frozen=True)
class BackwardDone:
    """`gradient` for the previous stage; None on the head."""

    gradient: Payload | None


@dataclass(frozen=True)
class Collect:
    """Sum the weight gradients of `indices`, which must all have been counted here in `round`."""

    round: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class CollectDone:
    """The summed weight `gradient` as one flat array; where replicas train locally only its SHA-256, and its `norm`.

    Where replicas add up for each other, the SHA-256 of each of its `pieces`.
    `delay`: steps between the weights that a micro-batch went forward with and those its gradient is applied to, on average
    """

    gradient: Payload
    delay: float = 0.0
    norm: float | None = None
    pieces: tuple[Payload, ...] = ()


@dataclass(frozen=True)
class Reduce:
    """Add up `chunk` of the weight gradients of `round`: of each of `parts` (worker, digest), in order, its piece.

    `said`: what another replica says that it adds up to, to be compared.
    """

    round: int
    parts: tuple[tuple[str, str], ...]
    chunk: int
    pieces: tuple[Payload, ...]
    said: Payload | None = None


@dataclass(frozen=True)
class ReduceDone:
    """The sum, and what norms and agreements are made of (`ChunkedSums.reduce`); whether it is what was said.

    `unusable`: by worker, what is wrong with its piece; then there is no sum.
    """

    total: Payload | None
    agrees: bool = True
    unusable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One replica's share of a round: the indices it counted and the sum of their weight gradients."""

    worker: str
    indices: tuple[int, ...]
    gradient: Payload


@dataclass(frozen=True)
class Inspect:
    """Measure the replicas' `parts` of `round` before anyone commits to them, and find those that cannot be computed with.

    `sums`: of all chunks, where replicas add up for each other.
    """

    round: int
    parts: tuple[Part, ...]
    sums: tuple[Payload, ...] = ()


@dataclass(frozen=True)
class InspectDone:
    """Gradient norms and agreements (cosine with the mean of the other replicas') by worker.

    `unusable`: by worker, what is wrong with what it sent; `false_sums`: chunks whose sums are NaN or larger than usable pieces
    can add up to. Where there is any of these, nothing was measured.
    """

    norms: dict[str, float | None]
    agreements: dict[str, float | None]
    unusable: dict[str, str] = field(default_factory=dict)
    false_sums: tuple[int, ...] = ()


@dataclass(frozen=True)
class Apply:
    """Aggregate the replicas' `parts`, or take their `sums`, and make the optimizer step of `round`."""

    round: int
    parts: tuple[Part, ...]
    wants_digest: bool = False
    sums: tuple[Payload, ...] = ()


@dataclass(frozen=True)
class ApplyDone:
    """The digest of the new weights, if it was wanted."""

    state_digest: str | None


@dataclass(frozen=True)
class LocalStep:
    """Make the step of `round` from this replica's own sum alone: the one over `indices` whose commitment has `digest`.

    `digest` None: it counted nothing in this round, and its weights stay as they are.
    """

    round: int
    indices: tuple[int, ...]
    digest: str | None
    wants_digest: bool = False


@dataclass(frozen=True)
class Displace:
    """Remember the weights after `round`, and say how far they are from what the replicas have in common.

    `again`: of the weights that a checkpoint remembers.
    """

    round: int
    again: bool = False


@dataclass(frozen=True)
class DisplaceDone:
    """The displacement as `payload`."""

    payload: Payload


@dataclass(frozen=True)
class Share:
    """One replica's displacement, and the micro-batches (`count`) that it counted on the way."""

    worker: str
    count: int
    payload: Payload


@dataclass(frozen=True)
class Measure:
    """Measure the displacements `shares` after `round` before anybody commits to them, as `Inspect` does with gradients.

    parts : what they are called (worker, digest), for whoever asked
    """

    round: int
    shares: tuple[Share, ...]
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Merge:
    """Move this replica by the displacements `shares` after `round`; without any, forget that exchange."""

    round: int
    shares: tuple[Share, ...]
    wants_digest: bool = False


@dataclass(frozen=True)
class SyncMark:
    """Where a replica that trains locally stands, for its checkpoint.

    counted : (round, index) that it counted and that no finished exchange has covered
    begun : the round after which the exchange under way began, None without one; apply_at : steps after which it is merged
    lag : rounds that the next exchange may take
    """

    counted: tuple[tuple[int, int], ...] = ()
    begun: int | None = None
    apply_at: int = 0
    lag: int = 1


@dataclass(frozen=True)
class Evaluate:
    """Run validation micro-batch `index` forward without gradients; the tail returns the summed loss."""

    version: int
    index: int
    inputs: Payload | None


@dataclass(frozen=True)
class EvaluateDone:
    """`output` for the next stage, or on the tail the summed `loss` in nats over `tokens` targets."""

    output: Payload | None = None
    loss: float | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Probe:
    """As `Evaluate`, for somebody who asks for the loss that `request` is about, outside the run's own validations."""

    request: str
    index: int
    inputs: Payload | None


@dataclass(frozen=True)
class Draw:
    """How the token at `position` of a text is chosen: the likeliest at `temperature` 0, else drawn, with the text's `seed`."""

    position: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Infer:
    """Take the positions after the first `start` of a text through this stage; the tail draws the token after the last.

    What the attention has seen is kept by `request` until `EndInference`. `ids`: the tokens at those positions, on the head;
    elsewhere they come with `inputs`. `attempt`: counts how often the text was begun anew; another one's cache is not used.
    """

    request: str
    attempt: int
    start: int
    ids: tuple[int, ...]
    inputs: Payload | None
    draw: Draw

    @property
    def num_positions(self) -> int:
        """How many positions are taken through, as far as is said; what came in is not checked yet, so at least 1."""
        if self.inputs is None:
            return len(self.ids)
        return max((math.prod(shape) for name, _, shape in self.inputs.layout if name == "ids"), default=0) or 1


@dataclass(frozen=True)
class InferDone:
    """`output` for the next stage, or the tail's `token`; neither where the cache of that attempt is not here."""

    output: Payload | None = None
    token: int | None = None


@dataclass(frozen=True)
class EndInference:
    """Forget what was kept for that attempt at the text `request`."""

    request: str
    attempt: int


@dataclass(frozen=True)
class Snapshot:
    """Write weights and optimizer state to bytes (safetensors), as of `version` completed rounds."""

    version: int
    mark: SyncMark | None = None


@dataclass(frozen=True)
class SnapshotDone:
    """The `state` and its SHA-256."""

    version: int
    state: bytes = field(repr=False)
    digest: str = ""


@dataclass(frozen=True)
class Restore:
    """Load `state` from a snapshot of `version` completed rounds; refused when its digest differs."""

    version: int
    state: bytes = field(repr=False)
    digest: str = ""


@dataclass(frozen=True)
class RestoreDone:
    """The state is loaded; the next round is `version`. `mark` is where whoever wrote it stood."""

    version: int
    mark: SyncMark | None = None


Task = (
    Forward
    | Backward
    | Collect
    | Reduce
    | Inspect
    | Apply
    | LocalStep
    | Displace
    | Measure
    | Merge
    | Evaluate
    | Probe
    | Infer
    | EndInference
    | Snapshot
    | Restore
)
Result = (
    ForwardDone
    | BackwardDone
    | CollectDone
    | ReduceDone
    | InspectDone
    | ApplyDone
    | DisplaceDone
    | EvaluateDone
    | InferDone
    | SnapshotDone
    | RestoreDone
)
