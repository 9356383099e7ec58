"""One stage of a model: the consecutive blocks that a worker holds, and what they cost."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluralis_lab.models.arithmetic import call_block, compiled_call, multiplying
from pluralis_lab.models.cost import stage_blocks
from pluralis_lab.models.gpt import Block, Embedding, Head, Seen, StreamBasis, Write
from pluralis_lab.models.measuring import built
from pluralis_lab.models.mlp import Layer
from pluralis_lab.parts import GPT, MLP, Blocks, Subspace
from pluralis_lab.spec import RunSpec


def torch_dtype(spec: RunSpec) -> torch.dtype:
    """Return the torch number format of `spec.dtype`."""
    return {"float32": torch.float32, "float64": torch.float64}[spec.dtype]


def stream_basis(spec: RunSpec, vocab: int) -> StreamBasis | None:
    """Return the shared basis of a subspace run, None for a run with another codec."""
    if not isinstance(spec.boundary, Subspace) or not isinstance(spec.model, GPT):
        return None
    model = spec.model
    return StreamBasis.draw(seed=spec.seed, vocab=vocab, d_model=model.d_model, rank=spec.boundary.rank, dtype=torch_dtype(spec))


class Stage(nn.Module):
    """The blocks of one stage, with the embedding on the first and the loss on the last.

    Parameters
    ----------
    spec : the run's spec
    stage : which stage, counted from 0
    vocab : token ids are below this (GPT); ignored by an MLP
    stream : the shared basis, None without a subspace
    """

    def __init__(self, spec: RunSpec, stage: int, vocab: int, stream: StreamBasis | None) -> None:
        super().__init__()
        dtype, model = torch_dtype(spec), spec.model
        self.is_first, self.is_last = stage == 0, stage == spec.stages - 1
        self.takes_tokens = spec.context is not None
        self.dtype, self.in_bfloat16, self.is_compiled = dtype, spec.precision == "bfloat16", spec.compile
        self.embedding: Embedding | None = None
        self.head: Head | None = None
        self.entry: nn.Module | None = None
        self.exit: nn.Module | None = None
        if isinstance(model, GPT):
            if self.is_first:
                self.embedding = Embedding(model, vocab, spec.seed, stream, dtype)
            # The last block reads the confined stream but nothing compresses what it writes: it keeps full rank.
            self.blocks = nn.ModuleList(
                Block(model, index, spec.seed, None if index == model.n_layer - 1 else stream, dtype)
                for index in stage_blocks(spec, stage)
            )
            if self.is_last:
                self.head = Head(model, vocab, spec.seed, dtype)
        elif isinstance(model, Blocks):
            own = list(built(model, spec.seed, stage_blocks(spec, stage), dtype))
            # A model's first and last block are apart: their matrices are a table and a projection, which Muon leaves to AdamW.
            self.entry = own.pop(0) if self.is_first else None
            self.exit = own.pop() if self.is_last and own else None
            self.blocks = nn.ModuleList(own)
        else:
            assert isinstance(model, MLP)
            self.blocks = nn.ModuleList(Layer(model.widths, index, spec.seed, dtype) for index in stage_blocks(spec, stage))

    def forward(self, x: Tensor) -> Tensor:
        """Map the stage's input to its output before the loss: `[batch, time, d_model]` or `[samples, features]`.

        The first stage of a model that reads tokens takes ids `[batch, time]`.
        """
        call = compiled_call() if self.is_compiled else call_block
        with self._multiplying(x):
            if self.embedding is not None:
                x = self.embedding(x)
            for block in (self.entry, *self.blocks, self.exit):
                x = x if block is None else call(block, x)
        return x.to(self.dtype)

    @property
    def basis(self) -> Tensor | None:
        """The orthonormal basis `[d_model, rank]` of the subspace that this stage writes into; None where it is free."""
        return next((part.basis for part in self._confined_parts()), None)

    def take_basis(self, basis: Tensor) -> None:
        """Write into another subspace from now on, with the same coordinates; copies of the stage keep theirs."""
        for part in self._confined_parts():
            assert part.basis is not None
            basis = basis.to(part.basis.device)
            part.basis = basis

    def confined(self) -> list[nn.Parameter]:
        """Return the weights `[..., rank]` whose rows are coordinates in the basis."""
        return [part.table if isinstance(part, Embedding) else part.weight for part in self._confined_parts()]

    def _confined_parts(self) -> Iterator[Embedding | Write]:
        return (part for part in self.modules() if isinstance(part, Embedding | Write) and part.basis is not None)

    def unseen(self) -> list[Seen]:
        """Return what `extend` begins with: a cache for each block. Only a GPT has one."""
        return [Seen() for _ in self.blocks]

    def extend(self, x: Tensor, seen: list[Seen]) -> Tensor:
        """Map positions that follow those in `seen` as `forward` would map all of them at once, and add them to `seen`."""
        with self._multiplying(x):
            if self.embedding is not None:
                x = self.embedding(x, seen[0].num_positions)
            for block, cache in zip(self.blocks, seen, strict=True):  # never compiled: each length would be, anew
                x = block(x, cache)
        return x.to(self.dtype)

    def logits(self, x: Tensor) -> Tensor:
        """Return this last stage's scores `[batch, time, vocab]` of what comes next after each position of `x`."""
        assert self.head is not None
        with self._multiplying(x):
            scores: Tensor = self.head(x)
        return scores

    def loss_sum(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats of this last stage's output `x` (see `forward`)."""
        with self._multiplying(x):
            if self.head is not None:
                return self.head.loss_sum(x, targets)
            return F.cross_entropy(x.flatten(0, -2), targets.flatten(), reduction="sum")

    def _multiplying(self, x: Tensor) -> AbstractContextManager[object]:
        """Return the context for arithmetic with `x`. Whoever computes with a stage comes through here, and so agrees."""
        return multiplying(x.device, in_bfloat16=self.in_bfloat16)


def build_stage(spec: RunSpec, stage: int, vocab: int) -> Stage:
    """Build `stage` with its seeded initial weights. No other stage is built."""
    return Stage(spec, stage, vocab, stream_basis(spec, vocab))


def num_parameters(module: nn.Module) -> int:
    """Count the trainable numbers of `module`."""
    return sum(parameter.numel() for parameter in module.parameters())
