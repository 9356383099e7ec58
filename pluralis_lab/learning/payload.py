"""Tensors as they cross a wire: named arrays in one byte string, never pickled."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pluralis_lab.errors import WireError

_DTYPES: dict[str, torch.dtype] = {
    "f8": torch.float64,
    "f4": torch.float32,
    "bf16": torch.bfloat16,
    "i8": torch.int64,
    "i4": torch.int32,
    "u2": torch.uint16,
    "u1": torch.uint8,
}
_MAX_ELEMENTS = 2**40
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""How to read bytes as arrays: (name, dtype code, shape) each."""

CODES = {dtype: code for code, dtype in _DTYPES.items()}
"""What each number format is called in a layout."""
_SIZES = {code: dtype.itemsize for code, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Payload:
    """Arrays side by side in `data`; `layout` says how to read them: (name, dtype code, shape) each.

    Raises
    ------
    WireError : on construction, when layout and data do not fit together.
    """

    layout: Layout
    data: bytes

    def __post_init__(self) -> None:
        expected = 0
        if len({name for name, _, _ in self.layout}) != len(self.layout):
            raise WireError(f"a payload names an array twice: {[name for name, _, _ in self.layout]}")
        for name, code, shape in self.layout:
            # An array with a zero size needs no bytes however large its other sizes are: they are bounded here.
            if code not in _SIZES or any(size < 0 for size in shape) or math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
                raise WireError(f"array {name!r} has dtype {code!r} and shape {shape}; dtypes are {sorted(_SIZES)}")
            expected += _SIZES[code] * math.prod(shape)
        if expected != len(self.data):
            raise WireError(f"a payload of {len(self.data)} bytes does not fit its layout, which needs {expected}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over layout and data, 64 hexadecimal characters: what a work item signs."""
        sha = hashlib.sha256(repr(self.layout).encode())
        sha.update(self.data)
        return sha.hexdigest()

    @property
    def size_bytes(self) -> int:
        """How many bytes the arrays have."""
        return sum(map(_size_bytes, self.layout))

    def first(self, count: int) -> "Payload":
        """Return the first `count` arrays alone."""
        layout = self.layout[:count]
        return self if layout == self.layout else Payload(layout, self.data[: sum(map(_size_bytes, layout))])

    def only(self, name: str) -> "Payload":
        """Return the one array `name` without the others. Raises WireError when there is none."""
        offset = 0
        for entry in self.layout:
            size = _size_bytes(entry)
            if entry[0] == name:
                return Payload((entry,), bytes(self.data[offset : offset + size]))
            offset += size
        raise WireError(f"a payload holds the arrays {[name for name, _, _ in self.layout]}, not {name!r}")

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name, as CPU tensors of their own memory."""
        out, offset = {}, 0
        for name, code, shape in self.layout:
            size = _SIZES[code] * math.prod(shape)
            data = bytearray(memoryview(self.data)[offset : offset + size])
            flat = torch.frombuffer(data, dtype=_DTYPES[code]) if size else torch.empty(0)
            out[name] = flat.to(_DTYPES[code]).view(shape)
            offset += size
        return out


def _size_bytes(entry: tuple[str, str, tuple[int, ...]]) -> int:
    _, code, shape = entry
    return _SIZES[code] * math.prod(shape)


def joined(payload: Payload, arrays: Sequence[tuple[str, Tensor]]) -> Payload:
    """Return `payload` with more arrays behind its own."""
    if not arrays:
        return payload
    more = pack(arrays)
    return Payload((*payload.layout, *more.layout), payload.data + more.data)


def pack(arrays: Sequence[tuple[str, Tensor]]) -> Payload:
    """Put `arrays` side by side. Raises WireError for a dtype that does not travel."""
    layout, chunks = [], []
    for name, tensor in arrays:
        if tensor.dtype not in CODES:
            raise WireError(f"array {name!r} has dtype {tensor.dtype}, which does not travel; dtypes are {sorted(_SIZES)}")
        flat = tensor.detach().cpu().contiguous()
        layout.append((name, CODES[flat.dtype], tuple(flat.shape)))
        chunks.append(flat.flatten().view(torch.uint8).numpy().tobytes())
    return Payload(tuple(layout), chunks[0] if len(chunks) == 1 else b"".join(chunks))
