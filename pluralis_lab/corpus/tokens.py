"""A byte-level text corpus: windows of a memory-mapped file whose training part comes first."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pluralis_lab.corpus.batches import CorpusInfo, MicroBatch, draw, permutation
from pluralis_lab.errors import CorpusError


class TokenCorpus:
    """Windows of ``context + 1`` byte ids over one cached file.

    Parameters
    ----------
    path : the file, uint8, training part first
    info : its facts; ``train_tokens + validation_tokens`` is the file's size in bytes
    context : tokens that a window predicts

    Raises CorpusError where a part is shorter than one window.

    Example
    -------
    >>> corpus = open_corpus("stdlib", context=128, home=home)
    >>> corpus.micro_batch(seed=0, round=7, index=3, size=4).inputs.shape
    (4, 129)
    """

    def __init__(self, path: Path, info: CorpusInfo, *, context: int) -> None:
        if context < 1:
            raise CorpusError(f"context={context}; use at least 1 token")
        window = context + 1
        for part, length in (("training", info.train_tokens), ("validation", info.validation_tokens)):
            if length < window:
                total = info.train_tokens + info.validation_tokens
                raise CorpusError(
                    f'data="{info.name}" has {total} tokens, {length} of them in its {part} part, fewer than one window of '
                    f"context + 1 = {window}; use a longer text or a smaller context"
                )
        self._info = info
        self._window = window
        tokens: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        self._train = tokens[: info.train_tokens]
        self._validation = tokens[info.train_tokens :]
        self._validation_order = permutation((info.validation_tokens - 1) // context, "validation")

    def info(self) -> CorpusInfo:
        """Return the facts that a run records."""
        return self._info

    def micro_batch(self, seed: int, round: int, index: int, size: int) -> MicroBatch:
        """Return `size` windows of the training part as uint16 ``[size, context + 1]``; a pure function of its arguments."""
        starts = draw(size, len(self._train) - self._window + 1, "micro-batch", seed, round, index)
        return MicroBatch(self._windows(self._train, starts), None)

    def validation_batch(self, index: int, size: int) -> MicroBatch:
        """Return `size` windows of the validation part; batches 0, 1, ... cover it once, in a fixed shuffled order."""
        places = (index * size + np.arange(size)) % len(self._validation_order)
        return MicroBatch(self._windows(self._validation, self._validation_order[places] * (self._window - 1)), None)

    def _windows(self, part: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint16]:
        windows: NDArray[np.uint8] = part[starts[:, None] + np.arange(self._window)]
        return windows.astype(np.uint16)
