"""A stage's weights and optimizer state as safetensors bytes, and back."""

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from pluralis_lab.errors import WireError
from pluralis_lab.learning.optimizers import slots
from pluralis_lab.learning.update_rule import UpdateRule
from pluralis_lab.learning.usable import check_usable
from pluralis_lab.parts import Optimizer


def dump(module: nn.Module, optimizer: UpdateRule, more: Mapping[str, torch.Tensor] | None = None) -> bytes:
    """Return weights (``weight/NAME``) and per-weight optimizer tensors (``optimizer/NAME/KEY``) as one safetensors file.

    more : further tensors by name
    """
    tensors = dict(more or {})
    for name, parameter in module.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return save_tensors(tensors)


def read(state: bytes, module: nn.Module, description: Optimizer, *, version: int) -> dict[str, torch.Tensor]:
    """Return the tensors of what `dump` wrote after `version` rounds, each of them such that this stage can go on from it.

    description : of the optimizer whose state it holds

    A digest says only that a state is the one that its sender announced. Raises WireError when it is damaged, when its names,
    shapes or number formats are not this stage's, or when its numbers are none that training leads to.
    """
    try:
        tensors = load_tensors(state)
    except SafetensorError as error:
        raise WireError(f"a snapshot of {len(state)} bytes is no safetensors file ({error})") from None
    named = dict(module.named_parameters())
    expected = {f"weight/{name}" for name in named}
    if {name for name in tensors if name.startswith("weight/")} != expected:
        raise WireError(
            f"a snapshot with the weights {sorted(tensors)[:3]}... is not of this stage, which has {len(named)} weights"
        )
    for name, parameter in named.items():
        kept = _kept_of(name, tensors)
        parts = {f"weight/{name}": tensors[f"weight/{name}"]}
        parts |= {f"optimizer/{name}/{key}": tensor for key, tensor in kept.items() if key != "step"}
        for key, tensor in parts.items():
            if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
                raise WireError(
                    f"{key!r} is {tuple(tensor.shape)} {tensor.dtype}, expected {tuple(parameter.shape)} {parameter.dtype}"
                )
            check_usable(tensor, f"{key!r} of a snapshot")
        if kept:
            _check_kept(kept, name, slots(description, name, parameter), version)
    return tensors


def _kept_of(name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what the optimizer keeps for the weight `name`, by key."""
    prefix = f"optimizer/{name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _check_kept(kept: Mapping[str, torch.Tensor], name: str, wanted: frozenset[str], version: int) -> None:
    """Raise WireError where the optimizer's rule cannot go on from what it is said to keep for the weight `name`."""
    if kept.keys() != wanted or ("step" in wanted and (kept["step"].shape != () or kept["step"].dtype != torch.float32)):
        found = {key: f"{tuple(tensor.shape)} {tensor.dtype}" for key, tensor in sorted(kept.items())}
        scalar = " with a scalar step in float32" if "step" in wanted else ""
        raise WireError(f"the optimizer state of {name!r} is {found}, expected {sorted(wanted)}{scalar}")
    if "step" in wanted:
        step = float(kept["step"])
        if not step.is_integer() or not 0 <= step <= version:  # NaN and infinity are no integers
            raise WireError(f"the optimizer has made {step} steps for {name!r}, after {version} rounds; the peer is at fault")
    if "exp_avg_sq" in wanted and (squares := kept["exp_avg_sq"]).numel() and (least := float(squares.min())) < 0:
        raise WireError(f"'optimizer/{name}/exp_avg_sq' has {least:.1e} among its means of squares; the peer is at fault")


def load(tensors: Mapping[str, torch.Tensor], module: nn.Module, optimizer: UpdateRule) -> None:
    """Take up the weights and the optimizer state among what `read` returned."""
    optimizer.state.clear()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensors[f"weight/{name}"])
            if kept := _kept_of(name, tensors):
                optimizer.state[parameter] = {
                    key: tensor if key == "step" else tensor.to(parameter.device) for key, tensor in kept.items()
                }
