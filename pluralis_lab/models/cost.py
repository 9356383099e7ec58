"""What a stage costs, from the spec alone: parameters and FLOPs, in whole numbers, without torch."""

import math

from pluralis_lab.parts import GPT, Blocks, Subspace
from pluralis_lab.spec import RunSpec


def stage_blocks(spec: RunSpec, stage: int) -> range:
    """Return the block numbers of `stage`: sizes differ by at most one, larger ones first."""
    base, extra = divmod(spec.num_blocks, spec.stages)
    start = stage * base + min(stage, extra)
    return range(start, start + base + (stage < extra))


def stage_parameters(spec: RunSpec, stage: int, vocab: int) -> int:
    """Count the trainable numbers of `stage`."""
    if isinstance(spec.model, Blocks):
        return sum(spec.model.blocks[index].parameters for index in stage_blocks(spec, stage))
    return sum(size for _, size in _weights(spec, stage, vocab))


def stage_flops_per_token(spec: RunSpec, stage: int, vocab: int) -> int:
    """Forward floating-point operations of `stage` for one token, or sample where the model reads vectors.

    Two for each weight of a matrix product (Kaplan et al., arXiv 2001.08361, section 2.1) and, in each attention layer,
    ``4 * d_model * context / 2`` for scores and weighted values under a causal mask, plus ``2 * d_model * rank`` for lifting a
    write out of the subspace. Of a model of the user's own: what torch counted for one sample, over its tokens.
    """
    if isinstance(spec.model, Blocks):
        return sum(spec.model.blocks[index].flops for index in stage_blocks(spec, stage)) // (spec.context or 1)
    total = sum(2 * size for is_product, size in _weights(spec, stage, vocab) if is_product)
    if isinstance(spec.model, GPT):
        for index in stage_blocks(spec, stage):
            total += 2 * spec.model.d_model * spec.model.context
            if _is_confined(spec, index):
                assert isinstance(spec.boundary, Subspace)
                total += 2 * 2 * spec.model.d_model * spec.boundary.rank
    return total


def entry_shape(spec: RunSpec, stage: int) -> tuple[int, ...]:
    """Return the shape, for one sample, of what comes in at `stage` > 0."""
    first = stage_blocks(spec, stage).start
    if isinstance(spec.model, Blocks):
        return spec.model.blocks[first - 1].shape
    return (spec.model.context, spec.model.d_model) if isinstance(spec.model, GPT) else (spec.model.widths[first],)


def widest_entry(spec: RunSpec) -> int:
    """Return the most numbers of one sample that cross a boundary of the run; 0 with one stage."""
    return max((math.prod(entry_shape(spec, stage)) for stage in range(1, spec.stages)), default=0)


def _is_confined(spec: RunSpec, index: int) -> bool:
    return isinstance(spec.boundary, Subspace) and index < spec.num_blocks - 1


def _weights(spec: RunSpec, stage: int, vocab: int) -> list[tuple[bool, int]]:
    """List (takes part in a matrix product, number of weights) of each trainable tensor of `stage`."""
    model = spec.model
    assert not isinstance(model, Blocks)
    if not isinstance(model, GPT):
        sizes = [(model.widths[i], model.widths[i + 1]) for i in stage_blocks(spec, stage)]
        return [item for a, b in sizes for item in ((True, a * b), (False, b))]
    d = model.d_model
    weights: list[tuple[bool, int]] = []
    if stage == 0:
        confined = isinstance(spec.boundary, Subspace)
        weights.append((False, vocab * (spec.boundary.rank if isinstance(spec.boundary, Subspace) and confined else d)))
        if model.positions == "learned":
            weights.append((False, model.context * d))
    for index in stage_blocks(spec, stage):
        width = spec.boundary.rank if isinstance(spec.boundary, Subspace) and _is_confined(spec, index) else d
        weights += [(True, 3 * d * d), (True, 4 * d * d), (True, d * width), (True, 4 * d * width), (False, 2 * d)]
        if model.write_norm == "trainable":
            weights.append((False, 2 * d))
    if stage == spec.stages - 1:
        weights += [(True, d * vocab), (False, d)]
    return weights
