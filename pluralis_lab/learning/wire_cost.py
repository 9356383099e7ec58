"""How many bytes a token the codecs put on a boundary, from the spec alone."""

from pluralis_lab.models.cost import stage_blocks
from pluralis_lab.parts import GPT, Subspace
from pluralis_lab.spec import RunSpec


def codec_bytes_per_token(spec: RunSpec, vocab: int) -> tuple[float, float]:
    """Return (forward, backward) bytes a token (GPT) or sample (MLP) without framing; the widest boundary of an MLP.

    Subspace in bfloat16: forward ``2 k + 2`` (``2 k + 4`` above 65,536 tokens) and one target id a sequence; backward ``2 k``.
    """
    assert spec.boundary is not None
    number = 2 if spec.boundary.wire == "bfloat16" else {"float32": 4, "float64": 8}[spec.dtype]
    if isinstance(spec.model, GPT):
        width = spec.boundary.rank if isinstance(spec.boundary, Subspace) else spec.model.d_model
        id_bytes = (2 if vocab <= 65536 else 4) * (spec.model.context + 1) / spec.model.context
        return number * width + id_bytes, float(number * width)
    width = max(spec.model.widths[1:-1], default=0)
    return number * width + 8.0, float(number * width)


def wire_width(spec: RunSpec, width: int) -> int:
    """Return how many numbers a token (or sample) of an activation of `width` are sent as."""
    return spec.boundary.rank if isinstance(spec.boundary, Subspace) else width


def entry_shapes(spec: RunSpec, stage: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes (ids or classes, encoded activation) of a micro-batch that comes in at `stage` > 0."""
    size = spec.micro_batch_size
    if isinstance(spec.model, GPT):
        return (size, spec.model.context + 1), (size, spec.model.context, wire_width(spec, spec.model.d_model))
    return (size,), (size, wire_width(spec, spec.model.widths[stage_blocks(spec, stage).start]))
