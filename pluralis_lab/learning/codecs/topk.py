"""A lossy boundary: the largest numbers of each row, and where they stand.

Source: algorithms.md, "Boundary codecs that lose". There is no error feedback: a boundary's rows are other samples each time,
and what one of them lost must not be added to another. What is not sent arrives as zero, and errors of several boundaries add
up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluralis_lab.errors import WireError
from pluralis_lab.learning.wire_cost import ENTRY_BYTES


@dataclass(frozen=True)
class TopKCodec:
    """The `count` numbers of a row that are largest by absolute value, in the order of their places."""

    count: int
    dtype: torch.dtype

    def row(self, width: int) -> tuple[int, torch.dtype]:
        return ENTRY_BYTES * self.count, torch.uint8

    def encode(self, x: Tensor, ids: Tensor | None) -> Tensor:
        return self._largest(x)

    def decode(self, wire: Tensor, ids: Tensor | None, width: int) -> Tensor:
        return self._restored(wire, width)

    def encode_gradient(self, gradient: Tensor) -> Tensor:
        return self._largest(gradient)

    def decode_gradient(self, wire: Tensor, width: int) -> Tensor:
        return self._restored(wire, width)

    def _largest(self, x: Tensor) -> Tensor:
        places = x.abs().topk(self.count, dim=-1).indices.sort(dim=-1).values
        values = x.gather(-1, places).to(torch.bfloat16)
        return torch.cat([_as_bytes(values), _as_bytes(places.to(torch.uint16))], dim=-1)

    def _restored(self, wire: Tensor, width: int) -> Tensor:
        values, places = wire.split(ENTRY_BYTES // 2 * self.count, dim=-1)
        where = places.contiguous().view(torch.uint16).to(torch.int64)
        if int(where.max()) >= width:
            raise WireError(f"a number was sent for place {int(where.max())} of a row that has {width}; the peer is at fault")
        if not bool((where.diff(dim=-1) > 0).all()):
            raise WireError("the places of a row's numbers do not ascend; the peer is at fault")
        row = torch.zeros((*wire.shape[:-1], width), dtype=self.dtype, device=wire.device)
        return row.scatter_(-1, where, values.contiguous().view(torch.bfloat16).to(self.dtype))


def _as_bytes(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)
