"""What every corpus offers, and the counter-based draw behind a micro-batch.

Micro-batch n of round r is a pure function of (seed, r, n), whoever computes it (algorithms.md, first section): a head
that takes over the indices of a dead one computes the very same bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

# The raw output of Philox and these array types are stable across numpy releases; `Generator.integers` is not promised to be.


@dataclass(frozen=True)
class CorpusInfo:
    """Facts of a corpus that go into a run's record.

    Parameters
    ----------
    name : the source as written in the spec
    kind : "tokens" (windows of token ids) or "vectors" (feature vectors with a class)
    hash : SHA-256 of the whole content, before the split
    vocab : number of token ids, or of classes
    train_tokens, validation_tokens : tokens of each part, or samples for vectors
    unigram_nats : entropy of the validation part under the training part's unigram frequencies, nats a token; None for vectors
    num_features : length of an input vector; 0 for tokens
    """

    name: str
    kind: Literal["tokens", "vectors"]
    hash: str
    vocab: int
    train_tokens: int
    validation_tokens: int
    unigram_nats: float | None
    num_features: int


@dataclass(frozen=True)
class MicroBatch:
    """Inputs of one micro-batch, and targets where they are not the inputs themselves.

    Tokens: `inputs` is uint16 ``[size, context + 1]`` and `targets` is None (the model shifts).
    Vectors: `inputs` is float32 ``[size, num_features]`` and `targets` int64 ``[size]``.
    """

    inputs: NDArray[Any]
    targets: NDArray[np.int64] | None


class Corpus(Protocol):
    """Training data that any worker can draw from without talking to another."""

    def info(self) -> CorpusInfo:
        """Return the facts that a run records."""
        ...

    def micro_batch(self, seed: int, round: int, index: int, size: int) -> MicroBatch:
        """Return micro-batch `index` of `round`: a pure function of (seed, round, index), `size` samples drawn from training."""
        ...

    def validation_batch(self, index: int, size: int) -> MicroBatch:
        """Return the `index`-th validation batch of `size` samples; always the same one, wrapping around at the end."""
        ...


def draw(count: int, below: int, *name: str | int) -> NDArray[np.int64]:
    """Return `count` integers in [0, below) that depend on `name` alone.

    Philox keyed by a hash of the name (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The modulo's
    bias is below 2**-20 for every corpus that fits a disk.
    """
    key = int.from_bytes(hashlib.sha256(json.dumps(name).encode("ascii")).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(count)
    return (raw % np.uint64(below)).astype(np.int64)


def permutation(length: int, *name: str | int) -> NDArray[np.int64]:
    """Return an order of ``range(length)`` that depends on `name` alone."""
    return np.argsort(draw(length, 2**62, *name), kind="stable").astype(np.int64)
