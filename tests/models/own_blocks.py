"""Models that a user could have written: one to train, and one for each reason to refuse."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB = 256


class CausalConv(nn.Module):
    """A convolution over the tokens before, added to the stream; the mask of its taps is a buffer."""

    taps: Tensor

    def __init__(self, width: int, length: int = 4) -> None:
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(width), nn.Conv1d(width, width, length)
        self.register_buffer("taps", torch.ones(length))

    def forward(self, x: Tensor) -> Tensor:
        h = F.pad(self.norm(x).transpose(1, 2), (len(self.taps) - 1, 0))
        return x + torch.tanh(F.conv1d(h, self.conv.weight * self.taps, self.conv.bias)).transpose(1, 2)


class Recurrent(nn.Module):
    """A GRU beside the stream, and a scale that is used only for positive inputs: its gradient can be missing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gru(x)[0]
        return x + out


def mixed(width: int = 16, layers: int = 3):
    """Yield an embedding, convolutions, a recurrent block and the projection: no two blocks are alike."""
    yield nn.Embedding(VOCAB, width)
    for _ in range(layers):
        yield CausalConv(width)
    yield Recurrent(width)
    yield nn.Linear(width, VOCAB)


def as_list(width: int = 16):
    return [nn.Embedding(VOCAB, width), CausalConv(width), nn.Linear(width, VOCAB)]


def images():
    """Digits as pictures: blocks whose outputs have another number of dimensions each."""
    yield nn.Unflatten(1, (1, 8, 8))
    yield nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
    yield nn.Sequential(nn.Conv2d(6, 4, 3, stride=2), nn.ReLU(), nn.Flatten())
    yield nn.Linear(36, 10)


class LooksAhead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


class MixesSamples(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Tuple(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class PlainMask(nn.Module):
    """Masks by an attribute that is no buffer: a tensor, or tensors in a list, a tuple or a dict."""

    def __init__(self, holder: str) -> None:
        super().__init__()
        mask = torch.ones(16)
        held: dict[str, Any] = {"tensor": mask, "list": [0, mask], "tuple": (mask, mask), "dict": {"a": mask}}
        self.inner = nn.Linear(16, 16)
        (self.inner if holder == "dict" else self).mask = held[holder]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class HoldsItsWeights(nn.Module):
    """Keeps its own weights in a list, and has one made before each forward pass: both go along to a GPU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = torch.nn.utils.weight_norm(nn.Linear(width, width))
        self.all_weights = [self.inner.weight_g, self.inner.weight_v]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def holding(width: int = 16):
    return [nn.Embedding(VOCAB, width), HoldsItsWeights(width), nn.Linear(width, VOCAB)]


def with_middle(kind: str):
    """Yield a model whose middle block, number 1, cannot be trained in pieces."""
    first, last = nn.Embedding(VOCAB, 16), nn.Linear(16, VOCAB)
    frozen = nn.Linear(16, 16)
    frozen.weight.requires_grad_(False)
    middle = {
        "ahead": lambda: LooksAhead(16),
        "dropout": lambda: nn.Dropout(0.5),
        "batch norm": lambda: nn.BatchNorm1d(8),
        "mixes": MixesSamples,
        "tuple": Tuple,
        "frozen": lambda: frozen,
        "shape": lambda: nn.Linear(99, 16),
        "no module": lambda: 7,
        "plain tensor": lambda: PlainMask("tensor"),
        "plain list": lambda: PlainMask("list"),
        "plain tuple": lambda: PlainMask("tuple"),
        "plain dict": lambda: PlainMask("dict"),
        "tied": lambda: nn.Sequential(last, nn.Linear(VOCAB, 16)),
    }
    return [first, middle[kind](), last]


def fails():
    raise ZeroDivisionError("no such width")
    yield nn.Linear(1, 1)


def unseeded():
    embedding = nn.Embedding(VOCAB, 4)
    with torch.no_grad():
        embedding.weight.fill_(float(torch.empty(1).uniform_(generator=_unseeded())))
    return [embedding, nn.Linear(4, VOCAB)]


def _unseeded() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


def classes_of_the_wrong_shape():
    return [nn.Embedding(VOCAB, 4), nn.Flatten(), nn.Linear(32, VOCAB)]


def nothing():
    return []
