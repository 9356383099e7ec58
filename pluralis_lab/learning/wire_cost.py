"""How many bytes a token the codecs put on a boundary, from the spec alone."""

import math

from pluralis_lab.models.cost import entry_shape
from pluralis_lab.parts import MLP, Blocks, Int8, SliceSync, Subspace, TopK
from pluralis_lab.spec import RunSpec

SCALE_BYTES = 4
"""Of a row in Int8: its largest number in float32."""
BLOCK = 1024
"""Numbers that share a scale where replicas exchange bytes: little overhead, and an outlier spoils no more than these."""
ENTRY_BYTES = 4
"""Of a number in TopK: its value in bfloat16 and its place in 16 bits."""


def codec_bytes_per_token(spec: RunSpec, vocab: int) -> tuple[float, float]:
    """Return (forward, backward) bytes a token, or sample of vectors, without framing; where widths differ, the widest boundary.

    Subspace in bfloat16: forward ``2 k + 2`` (``2 k + 4`` above 65,536 tokens) and one target id a sequence; backward ``2 k``.
    Int8: ``d + 4`` in place of ``2 k``; TopK: ``4 count``.
    """
    if isinstance(spec.model, MLP):
        row = float(_row_bytes(spec, max(spec.model.widths[1:-1], default=0)))
    elif isinstance(spec.model, Blocks):
        row = max((_sample_bytes(spec, entry_shape(spec, stage)) for stage in range(1, spec.stages)), default=0) / (
            spec.context or 1
        )
    else:
        row = float(_row_bytes(spec, spec.model.d_model))
    if spec.context is None:
        return row + 8.0, row
    return row + (2 if vocab <= 65536 else 4) * (spec.context + 1) / spec.context, row


def sync_bytes_per_weight(spec: RunSpec) -> float:
    """Return the bytes a weight that a replica sends to each other one of its stage, a round on average."""
    same = {"float32": 4.0, "float64": 8.0}[spec.dtype]
    number = {"same": same, "bfloat16": 2.0, "int8": 1.0 + SCALE_BYTES / BLOCK}[spec.sync.payload]
    share = 1 / math.ceil(1 / spec.sync.fraction) if isinstance(spec.sync, SliceSync) else 1.0
    if spec.is_butterfly:
        share = 2 / spec.replicas  # a part of the gradient there, and a part of the sum back
    return number * share / (spec.sync_every or 1)


def _sample_bytes(spec: RunSpec, shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1]) * _row_bytes(spec, shape[-1])


def _row_bytes(spec: RunSpec, width: int) -> int:
    """Return the bytes that a row of `width` numbers is sent as."""
    boundary = spec.boundary
    assert boundary is not None
    if isinstance(boundary, Int8):
        return width + SCALE_BYTES
    if isinstance(boundary, TopK):
        return ENTRY_BYTES * boundary.count
    number = 2 if boundary.wire == "bfloat16" else {"float32": 4, "float64": 8}[spec.dtype]
    return number * (boundary.rank if isinstance(boundary, Subspace) else width)


def entry_shapes(spec: RunSpec, stage: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes (ids or classes, activation before encoding) of a micro-batch that comes in at `stage` > 0."""
    size = spec.micro_batch_size
    labels = (size,) if spec.context is None else (size, spec.context + 1)
    return labels, (size, *entry_shape(spec, stage))
