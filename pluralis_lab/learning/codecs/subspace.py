"""Exact boundary compression: `rank` numbers a token instead of `d_model`.

Source: subspace networks, arXiv 2506.01260. Every write to the residual stream lies in Col(U), so ``x - fixed[ids]`` does at
every layer, and its coordinates in U are all there is to send. Backward, only the gradient's coordinates in U can reach a
weight before the boundary, because each such weight acts through a write in Col(U).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pluralis_lab.models.gpt import StreamBasis


@dataclass(frozen=True)
class SubspaceCodec:
    """Forward ``z = (x - fixed[ids]) U``, ``x = fixed[ids] + z Uᵀ``; backward ``(∂L/∂x) U``."""

    stream: StreamBasis
    wire: torch.dtype
    dtype: torch.dtype

    def row(self, width: int) -> tuple[int, torch.dtype]:
        return self.stream.basis.shape[1], self.wire

    def encode(self, x: Tensor, ids: Tensor | None) -> Tensor:
        return ((x - F.embedding(_known(ids), self.stream.fixed)) @ self.stream.basis).to(self.wire)

    def decode(self, wire: Tensor, ids: Tensor | None, width: int) -> Tensor:
        return F.embedding(_known(ids), self.stream.fixed) + wire.to(self.dtype) @ self.stream.basis.T

    def encode_gradient(self, gradient: Tensor) -> Tensor:
        return (gradient @ self.stream.basis).to(self.wire)

    def decode_gradient(self, wire: Tensor, width: int) -> Tensor:
        return wire.to(self.dtype) @ self.stream.basis.T


def _known(ids: Tensor | None) -> Tensor:
    assert ids is not None, "a subspace boundary always carries token ids"
    return ids
