"""The codec that sends everything: the peer that others are measured against."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DenseCodec:
    """All `d_model` numbers a token, forward and backward, in the wire's dtype."""

    wire: torch.dtype
    dtype: torch.dtype

    def row(self, width: int) -> tuple[int, torch.dtype]:
        return width, self.wire

    def encode(self, x: Tensor, ids: Tensor | None) -> Tensor:
        return x.to(self.wire)

    def decode(self, wire: Tensor, ids: Tensor | None, width: int) -> Tensor:
        return wire.to(self.dtype)

    def encode_gradient(self, gradient: Tensor) -> Tensor:
        return gradient.to(self.wire)

    def decode_gradient(self, wire: Tensor, width: int) -> Tensor:
        return wire.to(self.dtype)
