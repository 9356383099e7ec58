"""What crosses a boundary between two stages: one codec a file, one interface."""

from typing import Protocol

import torch
from torch import Tensor

from pluralis_lab.learning.codecs.dense import DenseCodec
from pluralis_lab.learning.codecs.subspace import SubspaceCodec
from pluralis_lab.models.gpt import StreamBasis
from pluralis_lab.parts import Subspace
from pluralis_lab.spec import RunSpec


class Codec(Protocol):
    """Turns a stage's output and its gradient into what is sent, and back.

    `ids` are the micro-batch's token ids `[batch, time]` for a model with a token stream, otherwise None. Encoded tensors
    have the wire's dtype, decoded ones the arithmetic's.
    """

    def encode(self, x: Tensor, ids: Tensor | None) -> Tensor: ...
    def decode(self, wire: Tensor, ids: Tensor | None) -> Tensor: ...
    def encode_gradient(self, gradient: Tensor) -> Tensor: ...
    def decode_gradient(self, wire: Tensor) -> Tensor: ...


def build_codec(spec: RunSpec, stream: StreamBasis | None, dtype: torch.dtype) -> Codec:
    """Build the codec that `spec.boundary` describes; `stream` is the shared basis of a subspace run."""
    assert spec.boundary is not None
    wire = dtype if spec.boundary.wire == "same" else torch.bfloat16
    if isinstance(spec.boundary, Subspace):
        assert stream is not None
        return SubspaceCodec(stream, wire=wire, dtype=dtype)
    return DenseCodec(wire=wire, dtype=dtype)
