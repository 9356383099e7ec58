"""A small GPT as a list of blocks whose writes to the residual stream can be confined to a subspace.

Source of the confinement: subspace networks, arXiv 2506.01260; `algorithms.md`, "Exact boundary compression".
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluralis_lab.models.arithmetic import lift
from pluralis_lab.models.seeded import normal, orthonormal
from pluralis_lab.parts import GPT

FIXED_EMBEDDING_STD = 0.5
"""Scale of the embeddings beside writes of unit scale. After 100 rounds of the quickstart's model (d=128, k=16, batch 16) the
training loss was 2.16 nats with 0.5 and 2.33 with 0.1."""


@dataclass(frozen=True)
class StreamBasis:
    """What all stages of a subspace run share: the frozen embedding and the subspace's basis.

    Attributes
    ----------
    fixed : frozen full-rank embedding `[vocab, d_model]`
    basis : orthonormal columns U `[d_model, rank]`
    """

    fixed: Tensor
    basis: Tensor

    @classmethod
    def draw(cls, *, seed: int, vocab: int, d_model: int, rank: int, dtype: torch.dtype) -> "StreamBasis":
        """Draw both from the seed; every stage gets bit-identical copies."""
        fixed = normal(seed, "stream/fixed", (vocab, d_model), FIXED_EMBEDDING_STD, dtype)
        basis = torch.from_numpy(orthonormal(seed, "stream/basis", d_model, rank)).to(dtype)
        return cls(fixed, basis)

    def to(self, device: torch.device) -> "StreamBasis":
        """Return both on `device`."""
        return StreamBasis(self.fixed.to(device), self.basis.to(device))


@dataclass
class Seen:
    """Keys and values of the positions that one block's attention has seen, `[batch, heads, time, width]` each; None at first."""

    keys: Tensor | None = None
    values: Tensor | None = None

    @property
    def num_positions(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add later positions, and return all there are."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat((self.keys, keys), dim=2), torch.cat((self.values, values), dim=2)
        self.keys, self.values = keys, values
        return keys, values


class Write(nn.Module):
    """A linear map into the residual stream: `x W`, or `(x Z) Uᵀ` when the stream is confined to Col(U).

    Input `[batch, time, inputs]`, output `[batch, time, d_model]`.
    """

    basis: Tensor | None

    def __init__(self, weight: Tensor, stream: StreamBasis | None, norm: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.norm = norm
        if norm == "trainable":
            self.gain = nn.Parameter(torch.ones(weight.shape[1] if stream is None else stream.basis.shape[0], dtype=weight.dtype))
        self.register_buffer("basis", None if stream is None else stream.basis, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        if self.basis is not None:
            y = lift(y, self.basis)
        if self.norm == "none":
            return y
        y = F.rms_norm(y, y.shape[-1:], eps=1e-6)
        return y * self.gain if self.norm == "trainable" else y


class Embedding(nn.Module):
    """Token ids `[batch, time]` to the stream `[batch, time, d_model]`: frozen part plus trainable part inside Col(U)."""

    fixed: Tensor | None
    basis: Tensor | None

    def __init__(self, model: GPT, vocab: int, seed: int, stream: StreamBasis | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("fixed", None if stream is None else stream.fixed, persistent=False)
        self.register_buffer("basis", None if stream is None else stream.basis, persistent=False)
        width = model.d_model if stream is None else stream.basis.shape[1]
        self.table = nn.Parameter(normal(seed, "embedding", (vocab, width), FIXED_EMBEDDING_STD, dtype))
        if model.positions == "learned":
            self.positions = nn.Parameter(normal(seed, "positions", (model.context, model.d_model), 0.02, dtype))
        self.has_positions = model.positions == "learned"

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """Embed `ids` `[batch, time]`, the first of which stands at position `start`."""
        x = F.embedding(ids, self.table)
        if self.fixed is not None and self.basis is not None:
            x = F.embedding(ids, self.fixed) + lift(x, self.basis)
        return x + self.positions[start : start + ids.shape[1]] if self.has_positions else x


class Block(nn.Module):
    """Causal self-attention with rotary positions, then a GELU MLP; RMSNorm with a trainable gain on each branch's input."""

    cos: Tensor
    sin: Tensor

    def __init__(self, model: GPT, index: int, seed: int, stream: StreamBasis | None, dtype: torch.dtype) -> None:
        super().__init__()
        d, heads = model.d_model, model.n_head
        self.n_head = heads
        self.attention_gain = nn.Parameter(torch.ones(d, dtype=dtype))
        self.mlp_gain = nn.Parameter(torch.ones(d, dtype=dtype))
        name = f"blocks/{index}"
        self.qkv = nn.Parameter(normal(seed, f"{name}/qkv", (d, 3 * d), d**-0.5, dtype))
        self.up = nn.Parameter(normal(seed, f"{name}/up", (d, 4 * d), d**-0.5, dtype))
        width = d if stream is None else stream.basis.shape[1]
        depth = (2 * model.n_layer) ** -0.5  # keeps the stream's variance independent of depth (GPT-2's scaling)
        attention = normal(seed, f"{name}/attention_write", (d, width), depth * d**-0.5, dtype)
        mlp = normal(seed, f"{name}/mlp_write", (4 * d, width), depth * (4 * d) ** -0.5, dtype)
        self.attention_write = Write(attention, stream, model.write_norm)
        self.mlp_write = Write(mlp, stream, model.write_norm)
        cos, sin = rotary_table(model.context, d // heads, dtype)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, seen: Seen | None = None) -> Tensor:
        """Map `[batch, time, d_model]` to the same shape; with `seen`, as the positions after those, which it then has, too."""
        x = x + self.attention_write(self.attend(F.rms_norm(x, x.shape[-1:], self.attention_gain, eps=1e-6), seen))
        h = F.rms_norm(x, x.shape[-1:], self.mlp_gain, eps=1e-6)
        write: Tensor = self.mlp_write(F.gelu(h @ self.up, approximate="tanh"))
        return x + write

    def attend(self, h: Tensor, seen: Seen | None) -> Tensor:
        """Causal attention over `h` `[batch, time, d_model]` and what was `seen` before; the shape of `h` out."""
        batch, time, d = h.shape
        start = 0 if seen is None else seen.num_positions
        q, k, v = (h @ self.qkv).view(batch, time, 3, self.n_head, d // self.n_head).permute(2, 0, 3, 1, 4)
        cos, sin = self.cos[start : start + time], self.sin[start : start + time]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if seen is not None:
            k, v = seen.extend(k, v)
        if start == 0:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mask = torch.ones(time, start + time, dtype=torch.bool, device=h.device).tril(start)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).reshape(batch, time, d)


class Head(nn.Module):
    """Final norm and the untied projection to logits `[batch, time, vocab]`, then the summed cross-entropy in nats."""

    def __init__(self, model: GPT, vocab: int, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(model.d_model, dtype=dtype))
        self.projection = nn.Parameter(normal(seed, "head", (model.d_model, vocab), 0.5 * model.d_model**-0.5, dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.gain, eps=1e-6) @ self.projection

    def loss_sum(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy summed over all `targets` `[batch, time]`, in nats."""
        return F.cross_entropy(self(x).flatten(0, 1), targets.flatten(), reduction="sum")


def rotary_table(context: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cos and sin `[context, width / 2]` of the rotary angles (RoFormer, arXiv 2104.09864), computed in float64."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(context, dtype=torch.float64)[:, None] * rates
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of `x` `[batch, heads, time, width]` by their position's angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
