"""How many bytes a token the codecs put on a boundary, from the spec alone."""

import math

from pluralis_lab.models.cost import stage_blocks
from pluralis_lab.parts import GPT, Int8, SliceSync, Subspace, TopK
from pluralis_lab.spec import RunSpec

SCALE_BYTES = 4
"""Of a row in Int8: its largest number in float32."""
BLOCK = 1024
"""Numbers that share a scale where replicas exchange bytes: little overhead, and an outlier spoils no more than these."""
ENTRY_BYTES = 4
"""Of a number in TopK: its value in bfloat16 and its place in 16 bits."""


def codec_bytes_per_token(spec: RunSpec, vocab: int) -> tuple[float, float]:
    """Return (forward, backward) bytes a token (GPT) or sample (MLP) without framing; the widest boundary of an MLP.

    Subspace in bfloat16: forward ``2 k + 2`` (``2 k + 4`` above 65,536 tokens) and one target id a sequence; backward ``2 k``.
    Int8: ``d + 4`` in place of ``2 k``; TopK: ``4 count``.
    """
    if isinstance(spec.model, GPT):
        row = float(_row_bytes(spec, spec.model.d_model))
        id_bytes = (2 if vocab <= 65536 else 4) * (spec.model.context + 1) / spec.model.context
        return row + id_bytes, row
    row = float(_row_bytes(spec, max(spec.model.widths[1:-1], default=0)))
    return row + 8.0, row


def sync_bytes_per_weight(spec: RunSpec) -> float:
    """Return the bytes a weight that a replica sends to each other one of its stage, a round on average."""
    same = {"float32": 4.0, "float64": 8.0}[spec.dtype]
    number = {"same": same, "bfloat16": 2.0, "int8": 1.0 + SCALE_BYTES / BLOCK}[spec.sync.payload]
    share = 1 / math.ceil(1 / spec.sync.fraction) if isinstance(spec.sync, SliceSync) else 1.0
    return number * share / (spec.sync_every or 1)


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
    if isinstance(spec.model, GPT):
        return (size, spec.model.context + 1), (size, spec.model.context, spec.model.d_model)
    return (size,), (size, spec.model.widths[stage_blocks(spec, stage).start])
