"""Where a head's micro-batches come from: the run's corpus, one of its own, or what somebody has drawn before it."""

import torch
from torch import Tensor

from pluralis_lab.corpus.batches import Corpus, draw
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.models.stage import torch_dtype
from pluralis_lab.spec import RunSpec

_SCALE = 1 << 20


class Drawing:
    """Draws for one head; other stages have one without a corpus, and draw nothing.

    own : a corpus of this worker alone, which it draws `RunSpec.own_data` of its micro-batches from
    """

    def __init__(self, spec: RunSpec, corpus: Corpus | None, own: Corpus | None, *, vocab: int, takes_tokens: bool) -> None:
        self._spec, self._corpus, self._own = spec, corpus, own
        self._vocab, self._takes_tokens = vocab, takes_tokens

    def is_own(self, round_: int, index: int) -> bool:
        """Whether that micro-batch is drawn from the own corpus: a pure function of (seed, round, index)."""
        if self._own is None:
            return False
        drawn = int(draw(1, _SCALE, "own data", self._spec.seed, round_, index)[0])
        return drawn < self._spec.own_data * _SCALE

    def draw(self, task: tasks.Forward, *, is_own: bool) -> tuple[Tensor, Tensor]:
        """Return a training micro-batch as (what enters the first stage, labels that travel along).

        Ids twice for tokens, features and classes for vectors. Raises WireError for drawn ids that are none of the vocabulary's.
        """
        if task.drawn is not None:
            ids = task.drawn.tensors()["ids"]
            lowest, highest = (int(end) for end in ids.to(torch.int64).aminmax())
            if lowest < 0 or highest >= self._vocab:
                raise WireError(f"ids from {lowest} to {highest} came back, but the vocabulary has 0 to {self._vocab - 1}")
            return self._to_tensors(ids, None)
        corpus = self._own if is_own else self._corpus
        assert corpus is not None
        batch = corpus.micro_batch(self._spec.seed, task.round, task.index, self._spec.micro_batch_size)
        return self._to_tensors(batch.inputs, batch.targets)

    def draw_validation(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a validation micro-batch of the run's corpus."""
        assert self._corpus is not None
        batch = self._corpus.validation_batch(index, self._spec.micro_batch_size)
        return self._to_tensors(batch.inputs, batch.targets)

    def _to_tensors(self, inputs: object, targets: object) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(inputs)
        if self._takes_tokens:
            return x, x
        return x.to(torch_dtype(self._spec)), torch.as_tensor(targets)
