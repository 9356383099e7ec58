"""Where a head's micro-batches come from: the run's corpus, one of its own, or what somebody has drawn before it."""

import torch

from pluralis_lab.corpus.batches import Corpus, MicroBatch, draw
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.spec import RunSpec

_SCALE = 1 << 20


def falls_to_own_data(spec: RunSpec, round_: int, index: int) -> bool:
    """Whether a head that has a corpus of its own draws that micro-batch from it: a pure function of (seed, round, index).

    So everybody knows for which micro-batches a head can say that it did.
    """
    return int(draw(1, _SCALE, "own data", spec.seed, round_, index)[0]) < spec.own_data * _SCALE


class Drawing:
    """Draws for one head; other stages have one without a corpus, and draw nothing.

    own : a corpus of this worker alone, which it draws `RunSpec.own_data` of its micro-batches from
    vocab : token ids are below this
    """

    def __init__(self, spec: RunSpec, corpus: Corpus | None, own: Corpus | None, *, vocab: int) -> None:
        self._spec, self._corpus, self._own, self._vocab = spec, corpus, own, vocab

    def is_own(self, task: tasks.Forward) -> bool:
        """Whether that micro-batch is drawn from the own corpus."""
        return self._own is not None and task.drawn is None and falls_to_own_data(self._spec, task.round, task.index)

    def micro_batch(self, task: tasks.Forward) -> MicroBatch:
        """Return a training micro-batch. Raises WireError for drawn ids that are none of the vocabulary's."""
        if task.drawn is not None:
            ids = task.drawn.tensors()["ids"]
            lowest, highest = (int(end) for end in ids.to(torch.int64).aminmax())
            if lowest < 0 or highest >= self._vocab:
                raise WireError(f"ids from {lowest} to {highest} came back, but the vocabulary has 0 to {self._vocab - 1}")
            return MicroBatch(ids.numpy(), None)
        corpus = self._own if self.is_own(task) else self._corpus
        assert corpus is not None
        return corpus.micro_batch(self._spec.seed, task.round, task.index, self._spec.micro_batch_size)

    def validation_batch(self, index: int) -> MicroBatch:
        """Return a validation micro-batch of the run's corpus."""
        assert self._corpus is not None
        return self._corpus.validation_batch(index, self._spec.micro_batch_size)
