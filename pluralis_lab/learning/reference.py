"""The same model trained by one process and a plain loop: what every engine is compared with."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pluralis_lab.corpus.batches import Corpus
from pluralis_lab.learning.optimizers import build_optimizer, learning_rate
from pluralis_lab.learning.refresh import energy_of, rebase, turned
from pluralis_lab.learning.turns import gathers, switches
from pluralis_lab.models.stage import Stage, stream_basis, torch_dtype
from pluralis_lab.parts import Subspace
from pluralis_lab.spec import RunSpec


@dataclass(frozen=True)
class Step:
    """One optimizer step: the mean loss before it in nats, and the flat gradient of each stage's weights."""

    round: int
    loss: float
    gradients: tuple[Tensor, ...]


def whole_model(spec: RunSpec, vocab: int) -> list[Stage]:
    """Build all stages in this process, with the weights that the workers of a run would have."""
    return [Stage(spec, stage, vocab, stream_basis(spec, vocab)) for stage in range(spec.stages)]


def train(spec: RunSpec, corpus: Corpus, *, steps: int | None = None, keeps_gradients: bool = True) -> Iterator[Step]:
    """Train the whole model on the round's micro-batches, one after the other, without codecs, wires or workers.

    `keeps_gradients`: copy each stage's gradient into its `Step`; without, the loop does nothing that training does not need.
    """
    stages = whole_model(spec, corpus.info().vocab)
    optimizers = [build_optimizer(stage, spec.optimizer) for stage in stages]
    next_basis: Tensor | None = None
    for round_ in range(spec.steps if steps is None else steps):
        losses, energy = 0.0, None
        for index in range(spec.num_micro_batches):
            loss, entry = _forward(spec, stages, corpus, round_, index)
            if gathers(spec, round_):
                entry.retain_grad()
            (loss / (spec.num_micro_batches * spec.tokens_per_micro_batch)).backward()
            losses += loss.item()
            if gathers(spec, round_) and entry.grad is not None:
                energy = energy_of(entry.grad) + (0 if energy is None else energy)
        kept = stages if keeps_gradients else []
        gradients = tuple(torch.cat([p.grad.flatten() for p in stage.parameters() if p.grad is not None]) for stage in kept)
        for optimizer in optimizers:
            optimizer.lr = learning_rate(spec.optimizer, round_)
            optimizer.step()
            optimizer.zero_grad()
        basis = stages[0].basis
        if switches(spec, round_) and basis is not None and next_basis is not None:
            for stage, optimizer in zip(stages, optimizers, strict=True):
                rebase(stage, optimizer, basis, next_basis)
        if energy is not None and basis is not None and isinstance(spec.boundary, Subspace):
            next_basis = turned(basis, energy, spec.boundary.refresh_step)
        yield Step(round_, losses / (spec.num_micro_batches * spec.tokens_per_micro_batch), gradients)


def micro_batch_loss(spec: RunSpec, stages: list[Stage], corpus: Corpus, round_: int, index: int) -> Tensor:
    """Return the summed loss of one micro-batch, with its graph."""
    return _forward(spec, stages, corpus, round_, index)[0]


def _forward(spec: RunSpec, stages: list[Stage], corpus: Corpus, round_: int, index: int) -> tuple[Tensor, Tensor]:
    """Return the summed loss of one micro-batch, with its graph, and what came in at the last stage."""
    batch = corpus.micro_batch(spec.seed, round_, index, spec.micro_batch_size)
    x = torch.as_tensor(batch.inputs)
    if stages[0].takes_tokens:
        ids = x.to(torch.int64)
        x, targets = ids[:, :-1], ids[:, 1:]
    else:
        x, targets = x.to(torch_dtype(spec)), torch.as_tensor(batch.targets)
    entry = x
    for stage in stages:
        entry, x = x, stage(x)
    return stages[-1].loss_sum(x, targets), entry
