"""A multi-layer perceptron as a list of blocks, for vectors such as the handwritten digits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluralis_lab.models.seeded import normal


class Layer(nn.Module):
    """One linear map with bias, `[samples, inputs]` to `[samples, outputs]`; ReLU after it unless it is the last."""

    def __init__(self, widths: tuple[int, ...], index: int, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        inputs, outputs = widths[index], widths[index + 1]
        self.weight = nn.Parameter(normal(seed, f"layers/{index}/weight", (inputs, outputs), (2 / inputs) ** 0.5, dtype))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=dtype))
        self.is_last = index == len(widths) - 2

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight + self.bias
        return y if self.is_last else F.relu(y)
