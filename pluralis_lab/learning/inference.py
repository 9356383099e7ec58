"""What one stage does for a text that is being written: its part of the next token, from what its attention has seen so far."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.codecs import Codec
from pluralis_lab.learning.payload import pack
from pluralis_lab.learning.refreshing import Codecs
from pluralis_lab.learning.stash import StashedStage, WeightStash
from pluralis_lab.models.gpt import Seen
from pluralis_lab.models.seeded import generator
from pluralis_lab.models.stage import Stage

MAX_TEXTS = 8
"""Texts under way that a stage keeps; beyond, the one that waited longest is forgotten, and its asker begins it anew."""
MAX_VERSIONS = 2
"""Versions of a stage's weights that the texts under way have at once, each of them a copy."""


@dataclass(frozen=True, eq=False)
class _Version:
    """Weights that texts are written with, and how what they make is encoded: the codec, and what goes along to name it."""

    stashed: StashedStage
    writes: Codec
    mark: list[tuple[str, Tensor]]


@dataclass
class _Text:
    """A text's attempt: what each block has seen, and the weights and codecs (in, out) that it was begun with."""

    attempt: int
    seen: list[Seen]
    version: _Version
    reads: Codec


class StageInference:
    """Caches and arithmetic of the texts under way.

    A text is written with the weights it was begun with: a copy, so that training goes on meanwhile. Each stage makes its own,
    and they can be a round apart. While texts have `MAX_VERSIONS` older versions in use, one that begins gets the newest of
    these, and its stages can be as many rounds apart as a text takes: the oldest gets no more texts, and is free when those that
    it has are at the context's end, where all begin anew.

    module : the stage that the optimizer changes in place
    """

    def __init__(self, module: Stage, codecs: Codecs, *, context: int, width: int, vocab: int, device: torch.device) -> None:
        self.module, self.codecs, self.context, self.width, self.vocab, self.device = (
            module,
            codecs,
            context,
            width,
            vocab,
            device,
        )
        self._stash = WeightStash(module, max_idle=1)
        self._versions: list[_Version] = []
        """Those that texts have in use, the oldest first."""
        self._texts: OrderedDict[str, _Text] = OrderedDict()

    def forget_newest(self) -> None:
        """Note that the stage's weights have changed."""
        self._stash.forget_newest()

    def infer(self, task: tasks.Infer) -> tasks.InferDone:
        """Extend a text by some positions. Raises WireError for activations of a wrong shape, or beyond the context."""
        ids, arrays = self._received(task)
        self._check(ids, task.start)
        if task.start == 0:
            self._forget(task.request)
            reads = self.codecs.of(arrays) if arrays else self.codecs.current
            if reads is None:
                return tasks.InferDone()  # the stages before are in another subspace by now, or still: it is begun anew
            version = self._take()
            self._texts[task.request] = _Text(task.attempt, version.stashed.module.unseen(), version, reads)
            if len(self._texts) > MAX_TEXTS:
                self._forget(next(iter(self._texts)))
        text = self._texts.get(task.request)
        if text is None or text.attempt != task.attempt or text.seen[0].num_positions != task.start:
            return tasks.InferDone()
        self._texts.move_to_end(task.request)
        version, stage = text.version, text.version.stashed.module
        entered = text.reads.decode(arrays["z"].to(self.device), ids, self.width) if arrays else ids
        with torch.no_grad():
            out = stage.extend(entered, text.seen)
            if not stage.is_last:
                return tasks.InferDone(
                    output=pack([("z", version.writes.encode(out, ids)), ("ids", ids.to(torch.int32)), *version.mark])
                )
            return tasks.InferDone(token=choose(stage.logits(out[:, -1:])[0, 0], task.draw))

    def end(self, request: str, attempt: int) -> None:
        """Forget that attempt at a text, if it is here."""
        if request in self._texts and self._texts[request].attempt == attempt:
            self._forget(request)

    def _take(self) -> _Version:
        """Return what a text that begins is written with: the newest weights, if not too many other versions are in use."""
        latest = self._versions[-1] if self._versions else None
        if latest is not None and len(self._versions) == MAX_VERSIONS and not self._stash.is_newest(latest.stashed):
            if latest.writes is self.codecs.current:
                self._stash.take_again(latest.stashed)
                return latest
            # The subspace has turned since: other stages could not read this any more. Whoever waits for these begins anew.
            for request in [request for request, text in self._texts.items() if text.version is self._versions[0]]:
                self._forget(request)
        stashed = self._stash.take()
        if latest is None or latest.stashed is not stashed:
            latest = _Version(stashed, self.codecs.current, self.codecs.mark())
            self._versions.append(latest)
        return latest

    def _forget(self, request: str) -> None:
        text = self._texts.pop(request, None)
        if text is None:
            return
        self._stash.give_back(text.version.stashed)
        if text.version.stashed.num_users == 0:
            self._versions.remove(text.version)

    def _check(self, ids: Tensor, start: int) -> None:
        count = ids.shape[1]
        if not 0 < count <= self.context - start:
            raise WireError(f"{count} positions after {start} of a text; the context has {self.context}")
        if int(ids.min()) < 0 or int(ids.max()) >= self.vocab:
            raise WireError(f"ids from {int(ids.min())} to {int(ids.max())} in a text; the vocabulary has 0 to {self.vocab - 1}")

    def _received(self, task: tasks.Infer) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the ids `[1, time]` of the new positions, and what came in, by name; on the head, nothing."""
        if task.inputs is None:
            return torch.tensor([task.ids], dtype=torch.int64, device=self.device), {}
        arrays = task.inputs.tensors()
        count, dtype = self.codecs.current.row(self.width)
        if not {"z", "ids"} <= arrays.keys():
            raise WireError(f"a text's activation carries the arrays {sorted(arrays)}, not 'z' and 'ids'")
        ids, wire = arrays["ids"], arrays["z"]
        if (
            ids.ndim != 2
            or ids.shape[0] != 1
            or ids.dtype != torch.int32
            or wire.shape != (*ids.shape, count)
            or wire.dtype != dtype
        ):
            raise WireError(
                f"a text's activation of shape {tuple(wire.shape)}, {wire.dtype} for ids {tuple(ids.shape)}, {ids.dtype}; "
                f"expected [1, time, {count}] of {dtype} and [1, time] of int32"
            )
        return ids.to(self.device, torch.int64), arrays


def choose(scores: Tensor, draw: tasks.Draw) -> int:
    """Return the next token by its `scores` `[vocab]`: the first of the largest at temperature 0, else one that is drawn.

    Drawn with the Gumbel-max trick (Maddison et al., arXiv 1411.0030), from numbers that depend on seed and position alone: a
    text that is begun anew by another worker goes on as it was.
    """
    scores = scores.to("cpu", torch.float64)
    if draw.temperature > 0:
        uniform = torch.from_numpy(generator(draw.seed, "token", draw.position).random(len(scores)))
        scores = scores / draw.temperature - torch.log(-torch.log(uniform))
    return int(torch.argmax(scores))
