"""How a stage's arithmetic is done: in which number format its matrices are multiplied, and whether its blocks are compiled."""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from pluralis_lab.errors import RunError

MAX_VARIANTS = 64
"""Compiled forms kept: one for each kind of block, with and without gradients. What comes beyond runs as it is, slowly."""


def multiplying(device: torch.device, *, in_bfloat16: bool) -> AbstractContextManager[object]:
    """Return the context in which a stage on `device` computes.

    With `in_bfloat16` torch's autocast rounds the factors of matrix products to bfloat16; weights, their gradients, norms and the
    loss stay as they are (mixed precision, arXiv 1710.03740; bfloat16 needs no scaling of the loss, arXiv 1905.12322).
    """
    return torch.autocast(device.type, torch.bfloat16) if in_bfloat16 else nullcontext()


def lift(coordinates: Tensor, basis: Tensor) -> Tensor:
    """Return the stream's vectors `[..., d_model]` of `coordinates` `[..., rank]` in the orthonormal `basis` `[d_model, rank]`.

    Never rounded to bfloat16: what is rounded after the lift is outside of the subspace, and a boundary would lose it.
    """
    kind = basis.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return coordinates @ basis.T
    with torch.autocast(kind, enabled=False):
        return coordinates.to(basis.dtype) @ basis.T


def call_block(block: nn.Module, x: Tensor) -> Tensor:
    """Return what `block` makes of `x`."""
    out: Tensor = block(x)
    return out


@functools.cache
def compiled_call() -> Callable[[nn.Module, Tensor], Tensor]:
    """Return what calls a block as compiled code, which blocks of one kind and shape share. The first call of each compiles.

    Raises RunError on a machine that cannot.
    """
    if missing := missing_compiler():
        raise RunError(f"compile=True: {missing}")
    import torch._dynamo.config
    import torch._inductor.config

    # No pool of compiling processes beside the workers: nothing may outlive a run, nor fork once CUDA has started.
    torch._inductor.config.compile_threads = 1
    torch._dynamo.config.recompile_limit = max(MAX_VARIANTS, torch._dynamo.config.recompile_limit)
    return torch.compile(call_block, dynamic=False)


def missing_compiler(kind: str = "cpu") -> str | None:
    """Say what this machine lacks to compile blocks for a "cpu" or "cuda" device, and the remedy; None when nothing."""
    wanted = os.environ.get("CXX") or "g++"
    if shutil.which(wanted) is None:
        return f"torch.compile needs a C++ compiler and found no {wanted!r}; install g++, or leave compile=False"
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        return (
            "torch.compile needs Triton for a GPU, and there is no package 'triton' here; pip install triton (torch's builds for "
            "CUDA on Linux bring it), or leave compile=False"
        )
    return None
