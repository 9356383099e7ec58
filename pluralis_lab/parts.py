"""The parts a run is described with: models, boundary codecs, sync rules, optimizers, policies, aggregators.

Only descriptions live here, as frozen pydantic models that travel in the spec. What they *do* is in `models/`, `learning/` and
`contributions/`, which need torch; importing this file does not.
"""

import hashlib
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from pluralis_lab.canonical import canonical_json, digest
from pluralis_lab.errors import RunSpecError
from pluralis_lab.markup import paragraph, table


class Part(BaseModel):
    """Base of everything that can stand in a `RunSpec`: immutable, and an unknown field is an error.

    Raises RunSpecError for a value that cannot be, naming the field and what would be right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    def __init__(self, /, *args: Any, **fields: Any) -> None:
        """Accept the fields by name, and the first one also by position (``Subspace(16)``, ``MLP([64, 96, 10])``)."""
        names = [name for name in type(self).model_fields if name != "kind"]
        if len(args) > len(names):
            takes = f"only ({', '.join(names)})" if names else "no values"
            raise RunSpecError(f"{type(self).__name__} takes {takes}, but was given {args!r}; put a sequence in brackets")
        by_position = dict(zip(names, args, strict=False))
        if twice := sorted(by_position.keys() & fields.keys()):
            raise RunSpecError(f"{type(self).__name__} got {twice[0]} twice, by position and by name; give it once")
        try:
            super().__init__(**by_position, **fields)
        except ValidationError as error:
            raise RunSpecError(explain(error, type(self))) from None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the fields that one can give, so that the text is Python: ``GPT(n_layer=6, ...)``."""
        return ((name, getattr(self, name)) for name in type(self).model_fields if name != "kind")

    def _repr_html_(self) -> str:
        about = (type(self).__doc__ or "").partition("\n")[0]
        rows = fields_table(self, skip=("kind",))
        return table(type(self).__name__, ("field", "value", "what it is"), rows) + paragraph(about)


def fields_table(model: BaseModel, skip: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """Return a row a field: name, value, description."""
    fields = type(model).model_fields
    rows = [(name, repr(getattr(model, name)), field.description or "") for name, field in fields.items() if name not in skip]
    # The text of a model of one's own would fill the screen: `spec.model.source` has it whole.
    return [(name, text if len(text) <= 400 else f"{text[:380]}… ({len(text):,} characters)", what) for name, text, what in rows]


def explain(error: ValidationError, cls: type[BaseModel]) -> str:
    """Return what is wrong with the fields of `cls`: for each fault the field, the value given and what would be right."""
    lines = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"] if part not in _TAGS)
        message = fault["msg"].removeprefix("Value error, ")
        if isinstance(fault.get("ctx", {}).get("error"), RunSpecError):
            lines.append(f"{where}: {message}" if where else message)
        elif fault["type"] == "extra_forbidden":
            known = ", ".join(sorted(name for name in cls.model_fields if name != "kind"))
            lines.append(f"unknown field {where}={_shown(fault['input'])}; {cls.__name__} has {known or 'no fields'}")
        elif fault["type"] == "missing":
            lines.append(f"{cls.__name__} needs {where}; give it")
        elif where:
            lines.append(f"{where}={_shown(fault['input'])}: {message[:1].lower()}{message[1:]}")
        else:
            lines.append(message)
    return "; ".join(lines)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class GPT(Part):
    """A decoder-only transformer: RoPE, RMSNorm before each branch, GELU, no biases, untied head.

    With ``boundary=Subspace(rank)`` every write to the residual stream but the last block's is confined to one subspace, so
    that boundaries can be compressed without loss (arXiv 2506.01260).
    """

    kind: Literal["gpt"] = "gpt"
    n_layer: int = Field(6, ge=1, le=1024, description="number of transformer blocks")
    n_head: int = Field(4, ge=1, description="attention heads a block; divides d_model")
    d_model: int = Field(128, ge=2, description="width of the residual stream")
    context: int = Field(128, ge=2, le=65536, description="tokens a sequence")
    write_norm: Literal["none", "frozen", "trainable"] = Field(
        "none",
        description="RMSNorm on each branch's output: none, with a frozen gain, or with a trainable one (breaks the subspace)",
    )
    positions: Literal["rope", "learned"] = Field(
        "rope", description="rotary embedding, or a learned table that is added to the stream (breaks the subspace)"
    )


class MLP(Part):
    """A multi-layer perceptron with ReLU; each linear layer is one block."""

    kind: Literal["mlp"] = "mlp"
    widths: tuple[int, ...] = Field(description="number of features before, between and after the layers, e.g. (64, 96, 10)")


class BlockFacts(BaseModel):
    """What one block of a model of the user's own was found to be, when the spec was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="its class")
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, description="of its output for one sample")
    parameters: int = Field(ge=0, description="numbers that are trained")
    flops: int = Field(ge=0, description="of its forward pass for one sample, as torch counts them")


class Blocks(Part):
    """Any PyTorch model, as a function that returns or yields its blocks: modules that map one tensor, batch first, to one.

    The first block gets token ids ``[batch, context]`` (or ``[batch, features]``), the last gives scores
    ``[batch, context, vocab]`` (or ``[batch, classes]``); the loss is their cross-entropy. Every worker runs the function and
    keeps the blocks of its stage; of one that yields, it never holds them all. Making this description runs the model once, on
    three samples, to see what its blocks are: what cannot be trained in pieces is refused, naming the layer.

    Example
    -------
    >>> Blocks("package.module:factory", context=64)  # doctest: +SKIP
    """

    kind: Literal["blocks"] = "blocks"
    factory: str = Field(
        min_length=1, max_length=200, description='"package.module:function", or the function\'s name in `source`'
    )
    context: int | None = Field(None, ge=2, le=65536, description="tokens a sequence; None where it reads vectors")
    features: int | None = Field(None, ge=1, description="length of an input vector; None where it reads tokens")
    options: SkipJsonSchema[dict[str, JsonValue]] = Field(
        default_factory=dict, description="what the function is called with, by name"
    )
    source: str | None = Field(None, max_length=200_000, description="text that defines the function; None: it is imported")
    blocks: SkipJsonSchema[tuple[BlockFacts, ...]] = Field((), description="what each was found to be; measured when left out")
    """This and the options are in no form: they come from where the code is."""

    @classmethod
    def from_source(
        cls,
        factory: Callable[..., Any],
        *,
        context: int | None = None,
        features: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> "Blocks":
        """Describe a model by a function of this notebook: its text goes into the spec, with all of the notebook that it needs.

        Raises RunSpecError for a function that captures values, or needs objects that have no text.
        """
        text = importlib.import_module("pluralis_lab.models.source_text").source_of(factory)
        return cls(factory=factory.__name__, context=context, features=features, options=options or {}, source=text)

    @property
    def source_hash(self) -> str | None:
        """SHA-256 of the source text, 64 hexadecimal characters. None: there is none, the function is imported."""
        return None if self.source is None else hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def accept_hash(self) -> str:
        """SHA-256, 64 hexadecimal characters, of all that says what runs on a worker; whoever joins the run must accept it.

        It is over the function's name and its options, too: ``os:system`` with a command needs no source text to do harm.
        """
        return digest(canonical_json({"factory": self.factory, "options": self.options, "source": self.source}))

    @model_validator(mode="after")
    def _measure(self) -> Self:
        if (self.context is None) == (self.features is None):
            raise ValueError(
                f"context={self.context}, features={self.features}: give one, context=64 for a model of tokens, features=64 for "
                "one of vectors"
            )
        if self.source is None and not re.fullmatch(r"[\w.]+:\w+", self.factory):
            raise ValueError(f"factory={self.factory!r} is not of the form 'package.module:function'")
        if self.source is None and self.factory.startswith("__main__:"):
            raise ValueError(
                f"factory={self.factory!r} is of this notebook, which no worker can import; use pl.Blocks.from_source(factory)"
            )
        if not self.blocks:
            # Needs torch, and runs the user's code: only where somebody writes `pl.Blocks(...)`, never where a spec is read.
            object.__setattr__(self, "blocks", importlib.import_module("pluralis_lab.models.measuring").measure(self))
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Leave out what is measured, and what is not given."""
        return ((name, value) for name, value in super().__repr_args__() if name != "blocks" and value not in (None, {}))

    def _repr_html_(self) -> str:
        rows = [
            (str(index), block.name, " × ".join(map(str, block.shape)), f"{block.parameters:,}", f"{block.flops:,}")
            for index, block in enumerate(self.blocks)
        ]
        about = f"{self.factory}, " + ("imported" if self.source is None else f"source text {self.source_hash}")
        return table("Blocks", ("block", "class", "output", "parameters", "FLOPs a sample"), rows) + paragraph(about)


class Dense(Part):
    """The activation itself crosses the boundary, in the wire's number format."""

    kind: Literal["dense"] = "dense"
    wire: Literal["same", "bfloat16"] = Field("same", description='"same" as spec.dtype, or "bfloat16"')


class Subspace(Part):
    """`rank` numbers a token cross the boundary, without loss (arXiv 2506.01260).

    With `refresh_every` the subspace is turned towards where the gradients have energy, every so many rounds, in all stages with
    the same step. The function that the model computes changes with that, once each time: `run.events("refresh")` has the loss on
    held-out data before the round whose step turns the subspace (`loss_before`), and after it (`loss_after`): what the turn and
    that one step of the optimizer have done together.
    """

    kind: Literal["subspace"] = "subspace"
    rank: int = Field(16, ge=1, description="dimension k of the subspace; k + k numbers a token instead of d + d")
    wire: Literal["same", "bfloat16"] = Field("bfloat16", description='"same" as spec.dtype (exact), or "bfloat16"')
    refresh_every: int | None = Field(None, ge=2, description="rounds between two turns of the subspace; None: it stays")
    refresh_step: float = Field(0.5, gt=0, le=1, description="how far it turns: step of the Riemannian gradient, over its bound")


class Int8(Part):
    """A byte a number, scaled by each token's largest: d + 4 bytes a token. Lossy; errors add up with each boundary."""

    kind: Literal["int8"] = "int8"


class TopK(Part):
    """The largest numbers of each token and their places: 4 bytes each. Lossy; errors add up with each boundary."""

    kind: Literal["topk"] = "topk"
    count: int = Field(8, ge=1, description="numbers a token that are sent; at most the width, and 4 bytes each")


_PAYLOAD = 'number format of what replicas send each other: "same" as spec.dtype, "bfloat16", or "int8" (a byte, scaled a block)'


class FullSync(Part):
    """Replicas average their gradients every round and wait for it: that is its meaning.

    With ``transport="gather"`` each replica sends its gradient to all others and adds up what it got: R − 1 gradients in and out.
    With ``"butterfly"`` each adds up a part for all: 2 (R − 1) / R gradients in and out, and a round trip more. A replica then
    takes the other parts' sums on trust, checks one chunk of them a round, drawn by chance, and expels whoever sent a false one.
    """

    kind: Literal["full"] = "full"
    transport: Literal["gather", "butterfly"] = Field(
        "gather", description='"gather": everybody receives all gradients; "butterfly": everybody adds up a part for all'
    )
    payload: Literal["same", "bfloat16", "int8"] = Field("same", description=_PAYLOAD)


class DiLoCo(Part):
    """Replicas train on their own and average how far they came, with an outer Nesterov step (arXiv 2311.08105).

    With ``overlap=True`` the exchange runs beside the next rounds and the outer step is applied late, as a delta, so that steps
    made meanwhile are kept. How late adapts to the rounds that the exchange before took.
    """

    kind: Literal["diloco"] = "diloco"
    inner_steps: int = Field(20, ge=1, description="rounds between two exchanges")
    outer_lr: float = Field(0.7, gt=0, le=2, description="rate of the outer step on the averaged displacement")
    outer_momentum: float = Field(0.9, ge=0, lt=1, description="decay of the outer Nesterov velocity")
    overlap: bool = Field(True, description="go on training during an exchange; False waits for it, as the paper does")
    payload: Literal["same", "bfloat16", "int8"] = Field("same", description=_PAYLOAD)


class SliceSync(Part):
    """Replicas train on their own and average a rotating slice of the weights beside it (SPARTA; arXiv 2601.22442).

    The average is applied as a delta, so that steps made meanwhile are kept: ``w += average - snapshot``. After the last round
    all weights are averaged once, so that there is one model.
    """

    kind: Literal["slice"] = "slice"
    fraction: float = Field(0.05, gt=0, le=1, description="share of the weights that a slice holds, drawn once from the seed")
    every: int = Field(20, ge=1, description="rounds between two slices")
    payload: Literal["same", "bfloat16", "int8"] = Field("same", description=_PAYLOAD)


def most_replicas(sync: Part) -> int:
    """Return how many replicas a stage may have: few enough for each to receive from all, unless they add up for each other."""
    return 64 if isinstance(sync, FullSync) and sync.transport == "butterfly" else 16


class AdamW(Part):
    """AdamW with decoupled weight decay (arXiv 1711.05101), linear warm-up, then a constant rate."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0, le=10, description="learning rate after the warm-up")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the second moment")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay a step, times lr")
    warmup: int = Field(10, ge=0, description="rounds over which the rate rises linearly")


class NAdam(Part):
    """Adam with Nesterov's look-ahead and decoupled weight decay, linear warm-up, then a constant rate.

    It corrects the delays of ``schedule="async"`` in two ways. The gradient's own part of a step is scaled by 1 - γ, so that a
    late gradient steers and does not push (arXiv 2505.01099, which has ``beta1=0.99`` for tens of thousands of rounds); γ rises
    from half of beta1 to beta1 over thousands of rounds, as Dozat's rule has it. And with ``delay_power=1`` a stage whose
    gradients are τ steps late has the rate lr / τ: the largest rate at which late steps are stable falls like that (PipeMare,
    arXiv 1910.05124). Runs of 300 to 1,200 rounds were best with ``NAdam(beta1=0.95, beta2=0.95, delay_power=1)``.
    """

    kind: Literal["nadam"] = "nadam"
    lr: float = Field(2e-3, gt=0, le=10, description="learning rate after the warm-up")
    beta1: float = Field(0.99, ge=0, lt=1, description="decay of the first moment, and what γ rises to; 0.99 against delays")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the second moment")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay a step, times lr")
    warmup: int = Field(10, ge=0, description="rounds over which the rate rises linearly")
    discounted: bool = Field(True, description="scale the gradient's own part by 1 - γ; False only to see what that is worth")
    delay_power: float = Field(
        0.0, ge=0, le=1, description="async: a stage whose gradients are τ > 1 steps late has the rate lr / τ^this; 0: all lr"
    )


class SGD(Part):
    """Stochastic gradient descent with momentum, linear warm-up, then a constant rate."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(0.1, gt=0, le=1000, description="learning rate after the warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="decay of the velocity; 0 for none")
    nesterov: bool = Field(False, description="look ahead along the velocity (needs momentum)")
    weight_decay: float = Field(0.0, ge=0, description="added to the gradient, times the weight")
    warmup: int = Field(10, ge=0, description="rounds over which the rate rises linearly")


class Muon(Part):
    """Orthogonalised momentum for the matrices of the blocks, scaled to AdamW's RMS (arXiv 2502.16982); AdamW for the rest."""

    kind: Literal["muon"] = "muon"
    lr: float = Field(2e-3, gt=0, le=10, description="learning rate after the warm-up, of both rules")
    momentum: float = Field(0.95, gt=0, lt=1, description="decay of the matrices' velocity")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment, of the rest")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the second moment, of the rest")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment, of the rest")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay a step, times lr")
    warmup: int = Field(10, ge=0, description="rounds over which the rate rises linearly")


class Work(Part):
    """Pay for counter-signed work: tokens times the FLOPs of the stage."""

    kind: Literal["work"] = "work"


class Mean(Part):
    """Average the replicas' gradients, weighted by the samples that each counted."""

    kind: Literal["mean"] = "mean"


_TAGS = ("gpt", "mlp", "blocks", "dense", "subspace", "int8", "topk", "adamw", "nadam", "sgd", "muon", "full", "diloco", "slice")
"""Kinds: pydantic names the chosen one in a fault's place."""

Model = Annotated[GPT | MLP | Blocks, Field(discriminator="kind")]
Boundary = Annotated[Subspace | Dense | Int8 | TopK, Field(discriminator="kind")]
Sync = Annotated[FullSync | DiLoCo | SliceSync, Field(discriminator="kind")]
Optimizer = Annotated[AdamW | NAdam | SGD | Muon, Field(discriminator="kind")]
Policy = Work
Aggregator = Mean
