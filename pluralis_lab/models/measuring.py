"""What a model of the user's own is made of, found by running it once, and why it cannot be trained in pieces, if so."""

import math
import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pluralis_lab.errors import RunSpecError
from pluralis_lab.models.factory import blocks_of
from pluralis_lab.models.seeded import generator
from pluralis_lab.parts import BlockFacts, Blocks

CLOSE = 1e-4
"""Relative difference up to which two passes count as equal: float32's rounding in another order is far below, dropout above."""


def measure(model: Blocks) -> tuple[BlockFacts, ...]:
    """Run the blocks one after the other on a small batch, and return what each is.

    The batch has three samples: two that differ in their last position only, which shows a block that looks ahead, and another.
    Only one block is held at a time where the factory yields them.

    Raises RunSpecError, naming the layer and the remedy, for a block that cannot be trained apart from the others, or that
    replicas would compute differently.
    """
    facts: list[BlockFacts] = []
    weights: list[weakref.ref[Tensor]] = []
    x, twins = _first_input(model), blocks_of(model, seed=0)
    for index, block in enumerate(blocks_of(model, seed=0)):
        layer = f"layer 'blocks.{index}' ({type(block).__name__}) of {model.factory}"
        _check_weights(block, next(twins, None), weights, layer)
        weights += [weakref.ref(parameter) for parameter in block.parameters()]
        x, flops = _pass(block, x, model, layer)
        facts.append(
            BlockFacts(
                name=type(block).__name__,
                shape=tuple(x.shape[1:]),
                parameters=sum(parameter.numel() for parameter in block.parameters()),
                flops=flops,
            )
        )
    if not facts:
        raise RunSpecError(f"the factory {model.factory} gave no block; return a list of torch.nn.Module, or yield them")
    _check_end(model, facts[-1])
    return tuple(facts)


def _first_input(model: Blocks) -> Tensor:
    """Return three samples: token ids `[3, context]`, of which 0 and 1 are used, or features `[3, features]`."""
    if model.context is not None:
        ids = torch.zeros(3, model.context, dtype=torch.int64)
        ids[1:, -1] = 1
        ids[2, ::2] = 1
        return ids
    return torch.from_numpy(generator(0, "measure").standard_normal((3, model.features or 0))).to(torch.float32)


def _check_weights(block: nn.Module, twin: nn.Module | None, seen: list[weakref.ref[Tensor]], layer: str) -> None:
    """Check what the block holds, beside another one that the factory made in the same way."""
    before = {id(parameter) for reference in seen if (parameter := reference()) is not None}
    twins = dict(twin.named_parameters()) if twin is not None else {}
    for name, parameter in block.named_parameters():
        if id(parameter) in before:
            raise RunSpecError(
                f"{layer} shares its weight '{name}' with an earlier block, which may be in another stage; give each its own"
            )
        if not parameter.requires_grad:
            raise RunSpecError(f"{layer} has a weight '{name}' that is not trained; register it as a buffer")
        if not parameter.is_floating_point():
            raise RunSpecError(f"{layer} has a weight '{name}' of {parameter.dtype}; weights are real numbers here")
        if name not in twins or not torch.equal(parameter, twins[name]):
            raise RunSpecError(
                f"{layer} begins with another '{name}' each time it is made; draw initial weights with torch's own "
                "generator, which is seeded for it"
            )
    _check_attributes(block, layer)


def _check_attributes(block: nn.Module, layer: str) -> None:
    """Check that the block holds no tensor but its weights and buffers, which alone go along to another device."""
    weights = {id(parameter) for parameter in block.parameters()}  # these stay the same objects; buffers are replaced
    for path, module in block.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            for tensor in _tensors_in(value):
                # What a hook makes of weights before each forward pass, as weight norm's does, is where these are.
                if id(tensor) in weights or (tensor.grad_fn is not None and module._forward_pre_hooks):
                    continue
                where, each = f"{path}.{name}" if path else name, "" if tensor is value else " each of them,"
                raise RunSpecError(
                    f"{layer} has a tensor of {tuple(tensor.shape)} in its plain attribute '{where}', which stays behind when "
                    f"the block goes to a GPU; register it as a buffer,{each} e.g. "
                    f"self.register_buffer({name!r}, ..., persistent=False)"
                )


def _tensors_in(value: object) -> list[Tensor]:
    """Return `value` if it is a tensor, and the tensors that it holds if it is a list, a tuple or a dict."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    return [item for item in held if isinstance(item, Tensor)]


def _pass(block: nn.Module, x: Tensor, model: Blocks, layer: str) -> tuple[Tensor, int]:
    """Return the block's output for `x`, and its floating-point operations for one sample."""
    buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
    with torch.no_grad():
        out, again = _call(block, x, layer), _call(block, x, layer)
    for name, buffer in block.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            raise RunSpecError(
                f"{layer} changes its buffer '{name}' in a forward pass, which replicas do not exchange (batch norm does so); "
                "use a norm over each sample, e.g. LayerNorm"
            )
    if out.shape[0] != len(x) or out.ndim < 2:
        raise RunSpecError(f"{layer} gave {tuple(out.shape)} for a batch of {len(x)}; give [batch, ..., width], batch first")
    if not torch.isfinite(out).all():
        raise RunSpecError(f"{layer} gives NaN or infinity with its initial weights; begin with smaller ones")
    if not _close(out, again):
        raise RunSpecError(
            f"{layer} gives another output each time (dropout does so); leave that out, nobody could check its work"
        )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        alone = _call(block, x[:1], layer)
    if not _close(out[:1], alone):
        raise RunSpecError(f"{layer} mixes the samples of a batch; each sample's output must depend on that sample alone")
    if model.context is not None and out.shape[1] == model.context and not _close(out[0, :-1], out[1, :-1]):
        raise RunSpecError(f"{layer} looks at later tokens, which the model shall predict; mask them (is_causal=True)")
    return out, counter.get_total_flops()


def _call(block: nn.Module, x: Tensor, layer: str) -> Tensor:
    try:
        out = block(x)
    except Exception as error:
        raise RunSpecError(
            f"{layer} failed on an input of {tuple(x.shape)}, {x.dtype}, with {type(error).__name__}: {error}"
        ) from error
    if not isinstance(out, Tensor) or not out.is_floating_point():
        raise RunSpecError(f"{layer} gave {type(out).__name__}, not one tensor of real numbers; a block maps one tensor to one")
    return out


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=CLOSE, atol=CLOSE * max(1e-30, float(one.abs().max())))


def _check_end(model: Blocks, last: BlockFacts) -> None:
    """Check that the last block gives a score for each class, of each token where it reads tokens."""
    wanted = "[batch, context, vocab]" if model.context is not None else "[batch, classes]"
    lead = (model.context,) if model.context is not None else ()
    if last.shape[:-1] != lead:
        got = tuple(last.shape)
        raise RunSpecError(
            f"the last block of {model.factory} gives [batch, {', '.join(map(str, got))}]; its scores must be {wanted}"
        )


def built(model: Blocks, seed: int, wanted: range, dtype: torch.dtype) -> Iterator[nn.Module]:
    """Yield the blocks with the numbers in `wanted`, checked against what the spec says of them.

    Raises RunSpecError where a block is not the one that was measured: its code has changed since.
    """
    for index, block in enumerate(blocks_of(model, seed)):
        if index in wanted:
            count = sum(math.prod(parameter.shape) for parameter in block.parameters())
            facts = model.blocks[index] if index < len(model.blocks) else None
            if facts is None or facts.parameters != count or facts.name != type(block).__name__:
                said = "no such block" if facts is None else f"a {facts.name} of {facts.parameters} weights"
                raise RunSpecError(
                    f"block {index} of {model.factory} is a {type(block).__name__} of {count} weights here, but the spec says "
                    f"{said}: the code has changed since the run was described; restore it, or describe the run anew"
                )
            yield block.to(dtype)
        if index >= wanted[-1]:
            return
    raise RunSpecError(f"{model.factory} gives fewer than the {len(model.blocks)} blocks of the spec; its code has changed since")
