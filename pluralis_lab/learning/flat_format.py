"""How replicas write a flat array of a stage's weights or gradients on the wire: as it is, in bfloat16, or a byte a number."""

import math
from typing import Literal

import torch
from torch import Tensor

from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning.codecs.int8 import quantised, restored
from pluralis_lab.learning.payload import Payload, pack
from pluralis_lab.learning.wire_cost import BLOCK, SCALE_BYTES

_CODES = {torch.float32: "f4", torch.float64: "f8"}


class FlatFormat:
    """Packs flat arrays of `dtype` for the wire, and reads them.

    Lossy formats are read back by their own author too, so that every replica goes on with the same numbers.

    Parameters
    ----------
    payload : "same" as `dtype`; "bfloat16"; "int8": a byte a number and a float32 scale for each block of 1,024
        (symmetric absolute-maximum quantisation: the error is at most half of a 127th of the block's largest number)
    dtype : number format of the weights
    """

    def __init__(self, payload: Literal["same", "bfloat16", "int8"], dtype: torch.dtype) -> None:
        self.payload, self.dtype = payload, dtype

    def layout(self, size: int) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """Return the only layout that an array of `size` numbers may have."""
        if self.payload == "int8":
            return (("q", "u1", (math.ceil(size / BLOCK), BLOCK + SCALE_BYTES)),)
        return (("g", "bf16" if self.payload == "bfloat16" else _CODES[self.dtype], (size,)),)

    def write(self, flat: Tensor) -> Payload:
        """Pack `flat` `[size]`."""
        if self.payload == "int8":
            rows = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
            return pack([("q", quantised(rows))])
        return pack([("g", flat.to(torch.bfloat16) if self.payload == "bfloat16" else flat)])

    def read(self, payload: Payload, size: int) -> Tensor:
        """Return the array `[size]`. Raises WireError for a payload of another layout."""
        if payload.layout != self.layout(size):
            raise WireError(f"an array laid out as {str(payload.layout)[:80]}, expected {self.layout(size)}")
        ((_, array),) = payload.tensors().items()
        if self.payload == "int8":
            return restored(array, self.dtype).flatten()[:size]
        return array.to(self.dtype)

    def as_read(self, flat: Tensor, written: Payload) -> Tensor:
        """Return `flat` as everybody reads it who is sent the `written` of it: itself where that is every bit, without a copy."""
        return flat if self.payload == "same" and flat.dtype == self.dtype else self.read(written, len(flat))

    def self_test(self) -> None:
        """Compare the mean of two arrays that went over the wire with the true one, by value.

        hivemind's 8-bit codecs average half of the input on numpy >= 2.4 and report success; ours shows at start that it does
        not. Raises RunError when this machine's arithmetic does not keep the format's bound.
        """
        numbers = torch.linspace(-3.0, 5.0, 3 * BLOCK + 17, dtype=self.dtype)
        pair = [numbers, numbers.flip(0) * 1e-3]
        mean = sum((self.read(self.write(array), len(array)) for array in pair), torch.zeros_like(numbers)) / 2
        bound = {"same": 0.0, "bfloat16": 2.0**-8, "int8": 0.5 / 127}[self.payload] * 5.0
        error = float((mean - (pair[0] + pair[1]) / 2).abs().max())
        if not error <= bound:
            raise RunError(
                f"payload={self.payload!r} averages with an error of {error:.3g} on this machine, its bound is {bound:.3g}; "
                'use payload="same"'
            )
