"""What crosses a boundary between two stages: one codec a file, one interface."""

from typing import Protocol

import torch
from torch import Tensor

from pluralis_lab.learning.codecs.dense import DenseCodec
from pluralis_lab.learning.codecs.int8 import Int8Codec
from pluralis_lab.learning.codecs.subspace import SubspaceCodec
from pluralis_lab.learning.codecs.topk import TopKCodec
from pluralis_lab.models.gpt import StreamBasis
from pluralis_lab.parts import Int8, Subspace, TopK
from pluralis_lab.spec import RunSpec


class Codec(Protocol):
    """Turns a stage's output and its gradient into what is sent, and back.

    A row is what one token (or sample) has: the last dimension, `width` numbers before encoding. `row` says what is sent
    for one, as (count, dtype); decoded tensors have the arithmetic's dtype. `ids` are the micro-batch's token ids
    `[batch, time]` for a model with a token stream, otherwise None. What is decoded has the shape and dtype of `row`; the rest
    of it may be anything. Raises WireError where it cannot be decoded.
    """

    def row(self, width: int) -> tuple[int, torch.dtype]: ...
    def encode(self, x: Tensor, ids: Tensor | None) -> Tensor: ...
    def decode(self, wire: Tensor, ids: Tensor | None, width: int) -> Tensor: ...
    def encode_gradient(self, gradient: Tensor) -> Tensor: ...
    def decode_gradient(self, wire: Tensor, width: int) -> Tensor: ...


def build_codec(spec: RunSpec, stream: StreamBasis | None, dtype: torch.dtype) -> Codec:
    """Build the codec that `spec.boundary` describes; `stream` is the shared basis of a subspace run."""
    assert spec.boundary is not None
    if isinstance(spec.boundary, Int8):
        return Int8Codec(dtype=dtype)
    if isinstance(spec.boundary, TopK):
        return TopKCodec(spec.boundary.count, dtype=dtype)
    wire = dtype if spec.boundary.wire == "same" else torch.bfloat16
    if isinstance(spec.boundary, Subspace):
        assert stream is not None
        return SubspaceCodec(stream, wire=wire, dtype=dtype)
    return DenseCodec(wire=wire, dtype=dtype)
