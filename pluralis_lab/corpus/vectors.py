"""Feature vectors with a class: scikit-learn's handwritten digits."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from pluralis_lab.corpus.batches import CorpusInfo, MicroBatch, draw, permutation

VALIDATION_SHARE = 0.2


class VectorCorpus:
    """Samples drawn from feature vectors float32 ``[n, num_features]`` with classes int64 ``[n]``.

    A fifth of the samples, in an order fixed by the data set's name, is the validation part.
    """

    def __init__(self, name: str, inputs: NDArray[np.float32], targets: NDArray[np.int64], *, num_classes: int) -> None:
        num_validation = max(1, int(len(inputs) * VALIDATION_SHARE))
        order = permutation(len(inputs), "split", name)
        self._inputs, self._targets = inputs, targets
        self._validation, self._train = order[:num_validation], order[num_validation:]
        content = hashlib.sha256(np.ascontiguousarray(inputs, dtype="<f4").tobytes())
        content.update(np.ascontiguousarray(targets, dtype="<i8").tobytes())
        self._info = CorpusInfo(
            name=name,
            kind="vectors",
            hash=content.hexdigest(),
            vocab=num_classes,
            train_tokens=len(self._train),
            validation_tokens=len(self._validation),
            unigram_nats=None,
            num_features=inputs.shape[1],
        )

    def info(self) -> CorpusInfo:
        """Return the facts that a run records."""
        return self._info

    def micro_batch(self, seed: int, round: int, index: int, size: int) -> MicroBatch:
        """Return `size` training samples; a pure function of its arguments."""
        return self._take(self._train[draw(size, len(self._train), "micro-batch", seed, round, index)])

    def validation_batch(self, index: int, size: int) -> MicroBatch:
        """Return the `index`-th batch of `size` validation samples, wrapping around at the end."""
        return self._take(self._validation[(index * size + np.arange(size)) % len(self._validation)])

    def _take(self, rows: NDArray[np.int64]) -> MicroBatch:
        return MicroBatch(self._inputs[rows], self._targets[rows])


def load_digits() -> VectorCorpus:
    """Return the 1,797 8 × 8 images of scikit-learn's digits, scaled to 0..1, in ten classes."""
    from sklearn.datasets import load_digits as load  # imported here: costs a second, and only this source needs it

    bunch = load()
    inputs = (bunch.data / 16.0).astype(np.float32)
    return VectorCorpus("digits", inputs, bunch.target.astype(np.int64), num_classes=10)
