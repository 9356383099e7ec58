"""A stage's weights and optimizer state as safetensors bytes, and back."""

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from pluralis_lab.errors import WireError


def dump(module: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """Return weights (``weight/NAME``) and per-weight optimizer tensors (``optimizer/NAME/KEY``) as one safetensors file."""
    tensors = {}
    for name, parameter in module.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return save_tensors(tensors)


def load(state: bytes, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load what `dump` wrote. Raises WireError when names or shapes are not this stage's."""
    tensors = load_tensors(state)
    named = dict(module.named_parameters())
    expected = {f"weight/{name}" for name in named}
    if {name for name in tensors if name.startswith("weight/")} != expected:
        raise WireError(f"a snapshot with the weights {sorted(tensors)[:3]}... is not of this stage, which has {len(named)} weights")
    optimizer.state.clear()
    with torch.no_grad():
        for name, parameter in named.items():
            value = tensors[f"weight/{name}"]
            if value.shape != parameter.shape or value.dtype != parameter.dtype:
                raise WireError(f"weight {name!r} is {tuple(value.shape)} {value.dtype}, expected {tuple(parameter.shape)} {parameter.dtype}")
            parameter.copy_(value)
            prefix = f"optimizer/{name}/"
            slots = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            if slots:
                optimizer.state[parameter] = {
                    key: tensor if key == "step" else tensor.to(parameter.device) for key, tensor in slots.items()
                }
