"""What comes into a stage and what goes out: drawn from the corpus, or read from the wire, checked, and packed for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluralis_lab.corpus.batches import MicroBatch
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.drawing import Drawing
from pluralis_lab.learning.payload import Payload, pack
from pluralis_lab.learning.refreshing import Codecs
from pluralis_lab.learning.transfers import Transfers
from pluralis_lab.learning.usable import check_own, check_usable
from pluralis_lab.learning.wire_cost import entry_shapes
from pluralis_lab.models.stage import torch_dtype
from pluralis_lab.spec import RunSpec


@dataclass(frozen=True)
class Entered:
    """A micro-batch at the beginning of a stage.

    x : what the stage's blocks take: ids `[batch, time]`, features, or the activation that came in; on the device
    labels : token ids `[batch, time + 1]` or classes `[batch]`, which travel along; in the host's memory
    ids : token ids `[batch, time]` on the device; None for vectors
    """

    x: Tensor
    labels: Tensor
    ids: Tensor | None


class StageEnds:
    """Both ends of one stage replica.

    source : where the head draws micro-batches
    codecs : of the run's boundaries
    vocab : token ids, or classes, are below this
    """

    def __init__(self, spec: RunSpec, stage: int, *, source: Drawing, vocab: int, codecs: Codecs, device: torch.device) -> None:
        self.spec, self.stage, self.source, self.vocab, self.codecs = spec, stage, source, vocab, codecs
        self.transfers = Transfers(device)
        self._takes_tokens = spec.context is not None

    def expect(self, task: tasks.Task) -> None:
        """Begin to copy what `task` will need, beside the task before it."""
        if isinstance(task, tasks.Forward | tasks.Evaluate | tasks.Probe) and task.inputs is not None:
            self.transfers.begin(task.inputs)
        elif isinstance(task, tasks.Backward):
            self.transfers.begin(task.gradient)

    def draw(self, task: tasks.Forward) -> Entered:
        """Return a micro-batch of the training data, for the head. Raises WireError as `Drawing.micro_batch`."""
        return self._entered(self.source.micro_batch(task))

    def draw_validation(self, index: int) -> Entered:
        """Return a micro-batch of the held-out data, for the head."""
        return self._entered(self.source.validation_batch(index))

    def _entered(self, batch: MicroBatch) -> Entered:
        x = torch.as_tensor(batch.inputs)
        if self._takes_tokens:
            ids = self.transfers.to_device(_without_last(x))
            return Entered(ids, x, ids)
        return Entered(self.transfers.to_device(x.to(torch_dtype(self.spec))), torch.as_tensor(batch.targets), None)

    def example(self) -> Tensor:
        """Return something of the shape and kind that the stage's blocks take, on the device."""
        if self.stage == 0:
            return self.draw(tasks.Forward(0, 0, None)).x
        return torch.zeros(entry_shapes(self.spec, self.stage)[1], dtype=torch_dtype(self.spec), device=self.transfers.device)

    def receive(self, inputs: Payload, *, may_be_apart: bool = False) -> Entered:
        """Read what the stage before sent. Raises WireError for anything but a micro-batch of this run.

        may_be_apart : read it also where the sender's subspace is not known here, although it then comes out a little wrong, and
            whatever the numbers are: it is only about somebody's question
        """
        arrays = self.transfers.receive(inputs)
        if not {"z", "ids"} <= arrays.host.keys():
            raise WireError(
                f"an activation carries the arrays {sorted(arrays.host)}, not 'z' and 'ids'; the peer runs another version"
            )
        labels, wire, codec = arrays.host["ids"], arrays.host["z"], self.codecs.of(arrays.host)
        if codec is None and may_be_apart:
            codec = self.codecs.current
        if codec is None or not (may_be_apart or codec is self.codecs.current):
            raise WireError("an activation came in from a subspace that this stage is not in; the peer is at fault")
        labels_shape, entry_shape = entry_shapes(self.spec, self.stage)
        width = entry_shape[-1]
        count, dtype = codec.row(width)
        wire_shape = (*entry_shape[:-1], count)
        if labels.shape != labels_shape or labels.is_floating_point():
            raise WireError(
                f"ids of shape {tuple(labels.shape)} and dtype {labels.dtype} came in, expected integers {labels_shape}"
            )
        lowest, highest = (int(end) for end in labels.to(torch.int64).aminmax())
        if lowest < 0 or highest >= self.vocab:
            raise WireError(f"ids from {lowest} to {highest} came in, but the vocabulary has 0 to {self.vocab - 1}")
        if wire.shape != wire_shape or wire.dtype != dtype:
            raise WireError(
                f"an activation of shape {tuple(wire.shape)} and dtype {wire.dtype} came in, expected {wire_shape}, {dtype}"
            )
        ids = _without_last(arrays.device["ids"]) if self._takes_tokens else None
        x = codec.decode(arrays.device["z"], ids, width)
        if not may_be_apart:
            check_usable(wire if wire.is_floating_point() else x, "an activation that came in")
        return Entered(x, labels, ids)

    def targets(self, labels: Tensor) -> Tensor:
        """Return what the tail's output is compared with, on the device: `[batch, time]` or `[batch]`."""
        return self.transfers.to_device((labels[:, 1:] if self._takes_tokens else labels).to(torch.int64))

    def send(self, out: Tensor, entered: Entered, *, may_be_apart: bool = False) -> Payload:
        """Encode and pack the stage's output, with the labels that travel along. Raises RunError where it has diverged.

        may_be_apart : as for `receive`
        """
        labels, codec = entered.labels, self.codecs.current
        if self._takes_tokens:
            labels = labels.to(torch.uint16 if self.vocab <= 65536 else torch.int32)
        wire = self.transfers.to_host(codec.encode(out, entered.ids))
        if not may_be_apart:
            check_own(wire if wire.is_floating_point() else out, f"activation behind stage {self.stage}")
        return pack([("z", wire), ("ids", labels), *self.codecs.mark()])

    def send_gradient(self, gradient: Tensor, beside: Sequence[tuple[str, Tensor]] = ()) -> Payload:
        """Encode and pack the gradient of what came in, and the arrays that go along. Raises RunError where it has diverged."""
        wire = self.transfers.to_host(self.codecs.current.encode_gradient(gradient))
        check_own(wire if wire.is_floating_point() else gradient, f"gradient before stage {self.stage}")
        return pack([("g", wire), *beside])

    def receive_gradient(self, payload: Payload, shape: tuple[int, ...]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the gradient of an output of `shape`, and what came along. Raises WireError for anything else."""
        arrays, codec = self.transfers.receive(payload), self.codecs.current
        wire = arrays.host.get("g")
        if wire is None:
            raise WireError("a gradient message carries no array 'g'; the peer runs another version")
        width = shape[-1]
        count, dtype = codec.row(width)
        expected = (*shape[:-1], count)
        if wire.shape != expected or wire.dtype != dtype:
            raise WireError(
                f"a gradient of shape {tuple(wire.shape)} and dtype {wire.dtype} came back for an output that is sent as "
                f"{expected}, {dtype}"
            )
        gradient = codec.decode_gradient(arrays.device["g"], width)
        check_usable(wire if wire.is_floating_point() else gradient, "a gradient that came back")
        return gradient, arrays.host


def _without_last(labels: Tensor) -> Tensor:
    """Return the token ids that are read; the last one is only a target."""
    return labels[:, :-1].to(torch.int64)
