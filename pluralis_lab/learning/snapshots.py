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


def load(state: bytes, module: nn.Module, optimizer: UpdateRule, description: Optimizer) -> dict[str, torch.Tensor]:
    """Load what `dump` wrote, and return all of its tensors; `description` is the optimizer's.

    Raises WireError, and changes nothing, when it is damaged or its names, shapes or number formats are not this stage's.
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
    kept: dict[str, dict[str, torch.Tensor]] = {}
    for name, parameter in named.items():
        prefix = f"optimizer/{name}/"
        kept[name] = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        parts = {f"weight/{name}": tensors[f"weight/{name}"]}
        parts |= {f"{prefix}{key}": tensor for key, tensor in kept[name].items() if key != "step"}
        for key, tensor in parts.items():
            if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
                raise WireError(
                    f"{key!r} is {tuple(tensor.shape)} {tensor.dtype}, expected {tuple(parameter.shape)} {parameter.dtype}"
                )
        if not kept[name]:
            continue
        wanted = slots(description, name, parameter)
        if kept[name].keys() != wanted or ("step" in wanted and kept[name]["step"].shape != ()):
            shapes = {key: tuple(tensor.shape) for key, tensor in sorted(kept[name].items())}
            scalar = " with a scalar step" if "step" in wanted else ""
            raise WireError(f"the optimizer state of {name!r} is {shapes}, expected {sorted(wanted)}{scalar}")
    optimizer.state.clear()
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensors[f"weight/{name}"])
            if kept[name]:
                optimizer.state[parameter] = {
                    key: tensor if key == "step" else tensor.to(parameter.device) for key, tensor in kept[name].items()
                }
    return tensors
