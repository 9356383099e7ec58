"""The full, immutable description of a run, checked as a whole before anything starts."""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pluralis_lab.canonical import canonical_json, digest
from pluralis_lab.corpus.sources import check_source
from pluralis_lab.errors import CorpusError, RunSpecError
from pluralis_lab.markup import paragraph, table
from pluralis_lab.parts import (
    GPT,
    MLP,
    SGD,
    AdamW,
    Aggregator,
    Blocks,
    Boundary,
    Dense,
    DiLoCo,
    FullSync,
    Mean,
    Model,
    NAdam,
    Optimizer,
    Policy,
    SliceSync,
    Subspace,
    Sync,
    TopK,
    Work,
    explain,
    fields_table,
    most_replicas,
)

SPEC_VERSION: Literal[1] = 1


ADDED_LATER = ("in_flight", "stashing", "own_data", "precision", "compile")
"""Fields that specs from before do not have: with their defaults they do not change a spec's hash, nor a run's id."""

MAX_PLACES = 65_536
MAX_BRACKETS = 1000
"""Python's JSON decoder recurses in C: where a library has raised the recursion limit (py-evm does), deep nesting would crash."""


def worker_name(number: int) -> str:
    """Return the name of the run's worker number `number` (stage-major order)."""
    return f"worker-{number}"


class RunSpec(BaseModel):
    """What shall be trained, how it is cut, and how work is counted and paid.

    A spec is frozen and has one canonical JSON form, whose SHA-256 is `hash`: it enters the run's id and so every signed
    statement.

    Raises
    ------
    RunSpecError : a field or a combination of fields cannot work; the message names the value and the remedy.

    Example
    -------
    >>> spec = RunSpec(model=GPT(n_layer=6), data="stdlib", stages=3, replicas=2, boundary=Subspace(16), steps=200)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = Field(SPEC_VERSION, description="version of this format")
    model: Model = Field(default_factory=GPT, description="the model: pl.GPT(...), pl.MLP(...) or pl.Blocks(...)")
    data: str = Field("stdlib", description='"stdlib", "digits", "path:FILE_OR_FOLDER" or "hf:NAME"')
    stages: int = Field(1, ge=1, le=1024, description="slices the model's blocks are cut into; 1 is plain data parallelism")
    replicas: int = Field(1, ge=1, le=64, description="workers that hold the same stage; more than 16 over butterfly alone")
    boundary: Boundary | None = Field(
        None, description="codec between stages; None: Subspace for a GPT of several stages, else Dense"
    )
    schedule: Literal["sync", "async"] = Field(
        "sync", description='"sync": equal to one process; "async": stages never wait for each other, gradients come late'
    )
    in_flight: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="micro-batches a head has under way at most; None: stages + 1 under async, its share of a round under sync",
    )
    stashing: bool = Field(
        True, description="async: a micro-batch comes back through the weights it went forward with; False saves their copies"
    )
    own_data: float = Field(
        0.0, ge=0, le=1, description="share of its micro-batches that a head which brings a corpus of its own draws from that"
    )
    sync: Sync = Field(default_factory=FullSync, description="what replicas of a stage exchange")
    optimizer: Optimizer = Field(default_factory=AdamW, description="the update rule each stage applies")
    policy: Policy = Field(default_factory=Work, description="what is paid")
    aggregator: Aggregator = Field(default_factory=Mean, description="how the replicas' gradients become one")
    steps: int = Field(300, ge=1, description="rounds, i.e. optimizer steps")
    batch_size: int = Field(16, ge=1, description="sequences (or samples) per head replica and round")
    micro_batches: int = Field(4, ge=1, description="pieces a head replica cuts its batch into; divides batch_size")
    epoch_rounds: int = Field(25, ge=1, description="rounds of one accounting epoch")
    emission: int = Field(1_000_000, ge=1, le=10**12, description="tokens (whole) minted for the first epoch's work")
    attesters: tuple[str, ...] | None = Field(None, description="who signs an epoch's root; None: the participants at launch")
    dtype: Literal["float32", "float64"] = Field("float32", description="number format of weights and arithmetic")
    precision: Literal["same", "bfloat16"] = Field(
        "same", description='number format that matrices are multiplied in: "same" as dtype, or "bfloat16" (autocast)'
    )
    compile: bool = Field(False, description="run each block as torch.compile makes it; where g++ is, and a minute's patience")
    seed: int = Field(0, ge=0, lt=2**63, description="decides weights, batches and routes")
    eval_every: int = Field(25, ge=0, description="rounds between two validation losses; 0: only after the last round")
    eval_batches: int = Field(4, ge=1, le=4096, description="validation micro-batches of one validation loss")
    checkpoint_every: int = Field(25, ge=1, description="rounds between two checkpoints of every stage")

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise RunSpecError(explain(error, RunSpec)) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_boundary(cls, fields: Any) -> Any:
        """Choose the default boundary here, so that the canonical form always names it."""
        if isinstance(fields, dict) and fields.get("boundary") is None:
            model = fields.get("model")
            is_other = isinstance(model, MLP | Blocks) or (isinstance(model, dict) and model.get("kind") in ("mlp", "blocks"))
            width = model.get("d_model", 128) if isinstance(model, dict) else getattr(model, "d_model", 128)
            if not isinstance(width, int) or width < 1:
                width = 128  # a wrong width is named when the model is checked
            one_stage = fields.get("stages", 1) == 1
            fields = dict(fields)
            fields["boundary"] = Dense() if is_other or one_stage else Subspace(rank=min(16, width))
        return fields

    @model_validator(mode="before")
    @classmethod
    def _fill_optimizer(cls, fields: Any) -> Any:
        """Take an optimizer without a kind for the default one, as specs from before there were others have it."""
        if isinstance(fields, dict) and isinstance(fields.get("optimizer"), dict):
            fields = {**fields, "optimizer": {"kind": "adamw", **fields["optimizer"]}}
        return fields

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        for check in (
            _check_model,
            _check_stages,
            _check_boundary,
            _check_update,
            _check_arithmetic,
            _check_batches,
            _check_data,
        ):
            problem = check(self)
            if problem:
                raise ValueError(problem)
        return self

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal characters."""
        return digest(self.to_json())

    def to_json(self) -> bytes:
        """Return the canonical JSON form. What came into the format later is in it only where it is not the default."""
        later = {name for name in ADDED_LATER if getattr(self, name) == type(self).model_fields[name].default}
        fields = self.model_dump(mode="json", exclude=later)
        if isinstance(self.sync, FullSync) and self.sync.payload == "same":
            del fields["sync"]["payload"]
        if isinstance(self.sync, FullSync) and self.sync.transport == "gather":
            del fields["sync"]["transport"]
        if isinstance(self.boundary, Subspace) and self.boundary.refresh_every is None:
            del fields["boundary"]["refresh_every"], fields["boundary"]["refresh_step"]
        if isinstance(self.optimizer, NAdam) and self.optimizer.delay_power == 0:
            del fields["optimizer"]["delay_power"]
        return canonical_json(fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "RunSpec":
        """Read a spec from JSON. Raises RunSpecError when it is malformed."""
        raw = text.encode() if isinstance(text, str) else text
        if raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS:
            raise RunSpecError(f"the spec holds more than {MAX_BRACKETS} brackets, no spec does; write one with spec.to_json()")
        try:
            fields = json.loads(raw)
        except ValueError as error:
            raise RunSpecError(f"the spec is not JSON ({error}); write one with spec.to_json()") from None
        if not isinstance(fields, dict):
            raise RunSpecError(f"the spec is a JSON {type(fields).__name__}, not an object; write one with spec.to_json()")
        model = fields.get("model")
        if isinstance(model, dict) and model.get("kind") == "blocks" and not model.get("blocks"):
            # Measuring runs the factory's code: reading a text must not.
            raise RunSpecError("the spec's model has no measured blocks; make the spec where its code is, with pl.Blocks(...)")
        return cls(**fields)

    def replace(self, **fields: Any) -> "RunSpec":
        """Return a copy with some fields changed, checked again as a whole."""
        return RunSpec(**{**{name: getattr(self, name) for name in type(self).model_fields}, **fields})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show what is not the default, so that the text is Python and short; it makes the same spec again."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value != field.get_default(call_default_factory=True) or name == "model":
                yield name, value

    def _repr_html_(self) -> str:
        head = (
            f"{type(self.model).__name__} of {self.num_blocks} blocks in {self.stages} stages × {self.replicas} replicas: "
            f"{self.num_workers} workers, {self.steps} rounds of {self.num_micro_batches} micro-batches"
        )
        rows = fields_table(self, skip=("version",))
        return table("RunSpec", ("field", "value", "what it is"), rows) + paragraph(f"{head}; spec hash {self.hash}")

    @property
    def num_blocks(self) -> int:
        """Blocks of the model: what stages are cut from."""
        if isinstance(self.model, Blocks):
            return len(self.model.blocks)
        return self.model.n_layer if isinstance(self.model, GPT) else len(self.model.widths) - 1

    @property
    def context(self) -> int | None:
        """Tokens of a sequence; None for a model that reads vectors."""
        return None if isinstance(self.model, MLP) else self.model.context

    @property
    def num_workers(self) -> int:
        return self.stages * self.replicas

    @property
    def num_micro_batches(self) -> int:
        """Micro-batch indices of one round, over all head replicas."""
        return self.replicas * self.micro_batches

    @property
    def micro_batch_size(self) -> int:
        """Sequences (or samples) of one micro-batch."""
        return self.batch_size // self.micro_batches

    @property
    def tokens_per_micro_batch(self) -> int:
        """Tokens of one micro-batch, or samples where the model reads vectors."""
        return self.micro_batch_size * (self.context or 1)

    @property
    def is_async(self) -> bool:
        return self.schedule == "async"

    @property
    def max_in_flight(self) -> int:
        """Micro-batches that a head has under way at most."""
        if self.in_flight is not None:
            return self.in_flight
        return self.stages + 1 if self.is_async else self.num_micro_batches

    @property
    def claims_at_once(self) -> bool:
        """Whether a head begins all its micro-batches of a round when the round begins, as nothing bounds them."""
        return not self.is_async and self.in_flight is None

    @property
    def window(self) -> int:
        """Rounds after the one in work that a stage may already compute for: none, unless the schedule is asynchronous.

        As many as a head's micro-batches under way can be spread over, and one for the exchange between replicas.
        """
        return -(-self.max_in_flight // self.micro_batches) + 1 if self.is_async else 0

    @property
    def sync_every(self) -> int | None:
        """Rounds between two exchanges of a rule that trains locally in between; None where every round is exchanged."""
        if isinstance(self.sync, DiLoCo):
            return self.sync.inner_steps
        return self.sync.every if isinstance(self.sync, SliceSync) else None

    @property
    def is_butterfly(self) -> bool:
        """Whether replicas add up their gradients for each other, chunk by chunk."""
        return isinstance(self.sync, FullSync) and self.sync.transport == "butterfly"

    @property
    def num_epochs(self) -> int:
        return -(-self.steps // self.epoch_rounds)

    def stage_of(self, worker: int) -> int:
        """Return the stage that local worker number `worker` holds."""
        return worker // self.replicas


def _check_model(spec: RunSpec) -> str | None:
    model = spec.model
    if isinstance(model, MLP):
        if len(model.widths) < 2 or any(width < 1 for width in model.widths):
            return f"MLP widths={list(model.widths)}: give at least an input and an output width, all >= 1, e.g. [64, 96, 10]"
        return None
    if isinstance(model, Blocks):
        return None
    if model.d_model % model.n_head:
        return f"d_model={model.d_model} is not divisible by n_head={model.n_head}; choose n_head from its divisors"
    if (model.d_model // model.n_head) % 2:
        return f"d_model/n_head={model.d_model // model.n_head} is odd, but rotary positions need pairs; change n_head or d_model"
    return None


def _check_stages(spec: RunSpec) -> str | None:
    if spec.stages > spec.num_blocks:
        return f"stages={spec.stages}, but the model has {spec.num_blocks} blocks; use stages <= {spec.num_blocks}"
    if isinstance(spec.model, Blocks):
        from pluralis_lab.models.cost import stage_blocks  # which needs this module

        for stage in range(spec.stages):
            numbers = stage_blocks(spec, stage)
            if not any(spec.model.blocks[index].parameters for index in numbers):
                return (
                    f"stages={spec.stages}: stage {stage} would be blocks {numbers[0]} to {numbers[-1]} of {spec.model.factory}, "
                    "which have no weights; use fewer stages, or put them into a block that has some"
                )
    return None


def _check_boundary(spec: RunSpec) -> str | None:
    boundary, model = spec.boundary, spec.model
    if isinstance(boundary, TopK):
        return _check_places(spec, boundary.count)
    if not isinstance(boundary, Subspace):
        return None
    if isinstance(model, MLP):
        return "boundary=Subspace, but an MLP has no residual stream to confine; use boundary=pl.Dense()"
    if isinstance(model, Blocks):
        return (
            f"layer 'blocks.0' ({model.blocks[0].name}) of {model.factory} writes outside of any subspace, so boundary=Subspace "
            "would lose information; use boundary=pl.Dense() or pl.Int8()"
        )
    if boundary.rank > model.d_model:
        return f"rank={boundary.rank} is above the width d_model={model.d_model}; use rank <= {model.d_model}"
    if problem := _check_refresh(spec, boundary):
        return problem
    if model.positions == "learned":
        return (
            "layer 'positions' (positions='learned') writes outside the subspace, so boundary=Subspace would lose information; "
            "use positions='rope' or boundary=pl.Dense()"
        )
    if model.write_norm == "trainable" and model.n_layer > 1:
        return (
            "layer 'blocks.0.write_norm' (write_norm='trainable') scales a write out of the subspace, so boundary=Subspace would "
            "lose information; use write_norm='frozen' or 'none', or boundary=pl.Dense()"
        )
    return None


def _check_refresh(spec: RunSpec, boundary: Subspace) -> str | None:
    every = boundary.refresh_every
    if every is None:
        default = Subspace.model_fields["refresh_step"].default
        is_default = boundary.refresh_step == default
        return (
            None
            if is_default
            else f"refresh_step={boundary.refresh_step} without refresh_every; give both, e.g. refresh_every=100"
        )
    if spec.stages == 1:
        return f"refresh_every={every} turns the subspace of boundaries, but stages=1 has none; leave it out"
    if spec.is_async:
        return (
            f'refresh_every={every} turns all stages with one step, but under schedule="async" they are at different rounds; use '
            'schedule="sync", or leave it out'
        )
    if spec.sync_every is not None:
        return (
            f"refresh_every={every} needs replicas that agree every round, but sync={type(spec.sync).__name__} lets them train "
            "on their own; use sync=pl.FullSync(), or leave it out"
        )
    return None


def _check_places(spec: RunSpec, count: int) -> str | None:
    """Say why `count` numbers of a row cannot be sent with 16-bit places."""
    if isinstance(spec.model, Blocks):
        widths = tuple(block.shape[-1] for block in spec.model.blocks[:-1])
    else:
        widths = (spec.model.d_model,) if isinstance(spec.model, GPT) else spec.model.widths[1:-1]
    if widths and count > min(widths):
        return f"boundary=TopK({count}) sends more numbers than a boundary of width {min(widths)} has; use count <= {min(widths)}"
    if widths and max(widths) > MAX_PLACES:
        return f"boundary=TopK numbers places in 16 bits, but the model is {max(widths)} wide; use pl.Int8() or pl.Dense()"
    return None


def _check_update(spec: RunSpec) -> str | None:
    if spec.replicas > (most := most_replicas(spec.sync)):
        return f'replicas={spec.replicas}, at most {most} can send to each; use sync=pl.FullSync(transport="butterfly"), up to 64'
    if not spec.is_async and not spec.stashing:
        return 'stashing=False is a variant of schedule="async"; leave it out, or use schedule="async"'
    if isinstance(spec.optimizer, SGD) and spec.optimizer.nesterov and not spec.optimizer.momentum:
        return "optimizer=SGD(nesterov=True, momentum=0.0): there is no velocity to look ahead along; give a momentum, e.g. 0.9"
    return None


def _check_arithmetic(spec: RunSpec) -> str | None:
    if spec.precision == "bfloat16" and spec.dtype == "float64":
        return 'precision="bfloat16" rounds float32, but dtype="float64"; use dtype="float32", or precision="same"'
    kept = "compile=True" if spec.compile else f'precision="{spec.precision}"' if spec.precision != "same" else None
    if kept and not spec.stashing:
        return (
            f"{kept} keeps copies of the weights until a micro-batch comes back, but stashing=False is to look at the weights as "
            "they are by then; use one of the two"
        )
    return None


def _check_batches(spec: RunSpec) -> str | None:
    if spec.batch_size % spec.micro_batches:
        return (
            f"batch_size={spec.batch_size} is not divisible by micro_batches={spec.micro_batches}; "
            f"choose a divisor of {spec.batch_size}"
        )
    if spec.attesters is not None:
        if not spec.attesters:
            return "attesters=() leaves nobody to sign an epoch; name at least one account, or use None for the participants"
        if not all(name.strip() for name in spec.attesters):
            return f"attesters={list(spec.attesters)} has one without a name; name the accounts that sign"
        if len(set(spec.attesters)) != len(spec.attesters):
            return f"attesters={list(spec.attesters)} names somebody twice; name each attester once"
    return None


def _check_data(spec: RunSpec) -> str | None:
    if spec.own_data and (spec.stages == 1 or spec.context is None):
        what = "nobody sees there what a head draws; use stages=2 or more"
        if spec.context is None:
            what = f"a {type(spec.model).__name__} reads vectors, and only texts can be brought along"
        return f"own_data={spec.own_data} with stages={spec.stages}: {what}, or leave it out"
    try:
        kind = check_source(spec.data).holds
    except CorpusError as error:
        return str(error)
    wanted = "vectors" if spec.context is None else "tokens"
    if kind != wanted:
        other = "pl.MLP(widths=[64, 96, 10])" if kind == "vectors" else "pl.GPT(...)"
        if isinstance(spec.model, Blocks):
            other = "pl.Blocks(..., features=64)" if kind == "vectors" else "pl.Blocks(..., context=64)"
        return f"data={spec.data!r} holds {kind}, but the model {type(spec.model).__name__} takes {wanted}; use model={other}"
    if kind == "vectors" and isinstance(spec.model, MLP) and (spec.model.widths[0], spec.model.widths[-1]) != (64, 10):
        return f"data='digits' has 64 features and 10 classes, but widths={list(spec.model.widths)}; use widths=[64, ..., 10]"
    if kind == "vectors" and isinstance(spec.model, Blocks):
        features, classes = spec.model.features, spec.model.blocks[-1].shape[-1]
        if features != 64 or classes < 10:
            return (
                f"data='digits' has 64 features and 10 classes, but {spec.model.factory} was given features={features} and gives "
                f"scores for {classes} classes; use features=64 and 10 classes"
            )
    return None
