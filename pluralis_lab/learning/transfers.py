"""Tensors between the host's memory and the device's: copied by the device itself while it computes something else.

A copy from pinned (page-locked) memory needs neither the processor nor the stream that computes. On the CPU there is nothing to
copy, and everything here is handed through.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pluralis_lab.learning.payload import Payload

MAX_BEGUN = 4
"""Copies under way or waiting to be used; the oldest is dropped beyond, and copied once more when it is wanted."""


@dataclass(frozen=True)
class Arrays:
    """A message's arrays by name: as they came, and on the device."""

    host: Mapping[str, Tensor]
    device: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Begun:
    """Copies that the device makes, and the event that says that they are made."""

    arrays: Arrays
    ready: torch.cuda.Event = field(repr=False)


class Transfers:
    """Copies between the host and one device. Not thread-safe, as the stage that uses it is not."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._begun: OrderedDict[str, _Begun] = OrderedDict()

    def begin(self, payload: Payload) -> None:
        """Begin to copy what a later task will `receive`, beside what the device is to compute before it."""
        if self._stream is None or payload.digest in self._begun:
            return
        if len(self._begun) == MAX_BEGUN:
            self._begun.popitem(last=False)
        host = payload.tensors()
        with torch.cuda.stream(self._stream):
            # torch keeps the pinned buffer until the copy is made, although nothing here refers to it any more.
            moved = {name: array.pin_memory().to(self.device, non_blocking=True) for name, array in host.items()}
            ready = torch.cuda.Event()
            ready.record(self._stream)
        self._begun[payload.digest] = _Begun(Arrays(host, moved), ready)

    def receive(self, payload: Payload) -> Arrays:
        """Return the arrays of `payload`; what is computed with them waits on the device until they are there."""
        if self._stream is None:
            host = payload.tensors()
            return Arrays(host, host)
        self.begin(payload)
        begun = self._begun.pop(payload.digest)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(begun.ready)
        for array in begun.arrays.device.values():
            array.record_stream(computing)  # its memory was taken on the other stream, which must not reuse it before
        return begun.arrays

    def to_device(self, tensor: Tensor) -> Tensor:
        """Return `tensor` on the device; what is computed with it waits there, and this process does not."""
        return tensor if self._stream is None else tensor.pin_memory().to(self.device, non_blocking=True)

    def to_host(self, tensor: Tensor) -> Tensor:
        """Return `tensor` in the host's memory, when it is there."""
        if self._stream is None or tensor.device.type == "cpu":
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self.device))
        arrived.synchronize()
        return host
