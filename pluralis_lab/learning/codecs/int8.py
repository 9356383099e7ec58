"""A lossy boundary: one byte a number, scaled by each row's largest.

Source: symmetric per-row absolute-maximum quantisation, as algorithms.md, "Boundary codecs that lose". The error of a row is at
most half a step, ``max|x| / 254``, and errors of several boundaries add up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluralis_lab.learning.wire_cost import SCALE_BYTES

LEVELS = 127


@dataclass(frozen=True)
class Int8Codec:
    """``round(127 x / max|x|)`` in a byte each, and ``max|x|`` in float32; the same for gradients."""

    dtype: torch.dtype

    def row(self, width: int) -> tuple[int, torch.dtype]:
        return width + SCALE_BYTES, torch.uint8

    def encode(self, x: Tensor, ids: Tensor | None) -> Tensor:
        return quantised(x)

    def decode(self, wire: Tensor, ids: Tensor | None, width: int) -> Tensor:
        return restored(wire, self.dtype)

    def encode_gradient(self, gradient: Tensor) -> Tensor:
        return quantised(gradient)

    def decode_gradient(self, wire: Tensor, width: int) -> Tensor:
        return restored(wire, self.dtype)


def quantised(x: Tensor) -> Tensor:
    """Return each row of `x` `[..., width]` as bytes `[..., width + 4]`: its numbers, then its largest magnitude."""
    largest = x.abs().amax(dim=-1, keepdim=True).to(torch.float32)
    # A row of zeros has no scale, and needs none. Divided first: LEVELS over a tiny scale would be infinite.
    steps = x.to(torch.float32) / largest.clamp_min(torch.finfo(torch.float32).tiny) * LEVELS
    numbers = steps.round().clamp(-LEVELS, LEVELS).to(torch.int8).view(torch.uint8)
    return torch.cat([numbers, largest.contiguous().view(torch.uint8)], dim=-1)


def restored(wire: Tensor, dtype: torch.dtype) -> Tensor:
    """Read what `quantised` wrote."""
    numbers = wire[..., :-SCALE_BYTES].contiguous().view(torch.int8).to(dtype)
    # A copy in any case: four bytes at any place of a single row would count as contiguous, and not be aligned.
    scale = wire[..., -SCALE_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32).to(dtype)
    return numbers * (scale / LEVELS)
