"""A worker's arithmetic without the arithmetic: results of the right sizes, for plans of runs that nobody here could compute."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.receipts import ItemKind, WorkItem
from pluralis_lab.learning import tasks
from pluralis_lab.learning.chunks import ChunkedSums, hashes_layout
from pluralis_lab.learning.codecs import build_codec
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.local_sync import part_size
from pluralis_lab.learning.payload import CODES, Payload
from pluralis_lab.learning.refresh import extra_layout
from pluralis_lab.learning.wire_cost import entry_shapes
from pluralis_lab.models.cost import stage_parameters
from pluralis_lab.models.gpt import StreamBasis
from pluralis_lab.models.stage import torch_dtype
from pluralis_lab.parts import Subspace
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker.messages import COMMITMENT_LAYOUT, Message
from pluralis_lab.worker.signing import Signing

STATE_COPIES = 3
"""Arrays of a stage's size in a state: weights and the optimizer's two moments."""


@dataclass(frozen=True)
class SizedPayload(Payload):
    """Arrays that are nowhere: only their layout, and a `tag` that tells them from others."""

    tag: str = ""

    def __post_init__(self) -> None:
        """Nothing to check: there is no data."""

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.layout} {self.tag}".encode()).hexdigest()

    def first(self, count: int) -> "SizedPayload":
        return SizedPayload(self.layout[:count], b"", self.tag)

    def only(self, name: str) -> "SizedPayload":
        return SizedPayload(tuple(entry for entry in self.layout if entry[0] == name), b"", self.tag)


class SizedState(bytes):
    """A stage's state, or a part of one, that is nowhere: only how large it is."""

    size_bytes: int

    def __new__(cls, size_bytes: int) -> "SizedState":
        """Make one of so many bytes."""
        made = super().__new__(cls)
        made.size_bytes = size_bytes
        return made

    def __len__(self) -> int:
        return self.size_bytes

    def __getitem__(self, part: Any) -> Any:
        return SizedState(len(range(*part.indices(self.size_bytes))))


def missing_bytes(message: Message) -> int:
    """Return how many bytes of `message` are only said to be there."""
    values = vars(message).values()
    return sum(value.size_bytes for value in values if isinstance(value, SizedPayload | SizedState))


BLANK_SIGNATURE = "0x" + "00" * 65
"""As long as a signature, and none: its last byte is no recovery id, so whoever checks signatures refuses it."""


def _blank_work(
    key: HotKey,
    run: str,
    round: int,
    kind: str,
    stage: int,
    worker: str,
    indices: Sequence[int],
    tokens: int,
    digest: str,
) -> dict[str, Any]:
    return {"indices": sorted(indices), "tokens": tokens, "digest": digest, "signature": BLANK_SIGNATURE}


def _blank_receipt(key: HotKey, **facts: Any) -> dict[str, Any]:
    """Return nothing: a receipt goes to whoever records the run, and nobody records a plan."""
    return {}


def _read_blank(item: dict[str, Any], address: str, run: str, round: int, kind: ItemKind, stage: int, worker: str) -> WorkItem:
    return WorkItem(kind, run, round, stage, worker, tuple(item["indices"]), item["tokens"], item["digest"], item["signature"])


MODELLED_SIGNING = Signing(_blank_work, _blank_receipt, _read_blank)
"""Items of the right size that nobody signed: signing would be half of what a plan computes, and takes no virtual time."""


class ModelledCompute:
    """Stands where `StageCompute` does: takes the same tasks and returns what has the same size, at once.

    A micro-batch's loss is that of a model that has learned nothing; norms and agreements are unknown.

    vocab : token ids or classes of the corpus
    """

    def __init__(self, spec: RunSpec, stage: int, name: str, *, vocab: int) -> None:
        self.spec, self.index, self.name, self.vocab = spec, stage, name, vocab
        self.num_parameters = stage_parameters(spec, stage, vocab)
        self.version = 0
        self._dtype = torch_dtype(spec)
        self._format = FlatFormat(spec.sync.payload, self._dtype)
        self._chunked = ChunkedSums(self._format, self.num_parameters)
        self._is_last = stage == spec.stages - 1
        stream = None
        if isinstance(spec.boundary, Subspace):
            stream = StreamBasis(torch.empty(0), torch.empty(0, spec.boundary.rank))
        self._codec = build_codec(spec, stream, self._dtype)

    def run(self, task: tasks.Task) -> tasks.Result:
        """Return the result of `task`, as far as it has one."""
        if isinstance(task, tasks.Forward):
            return self._forward(task)
        if isinstance(task, tasks.Backward):
            return tasks.BackwardDone(None if self.index == 0 else self._gradient(task.round, task.index))
        if isinstance(task, tasks.Collect):
            return self._collect(task)
        if isinstance(task, tasks.Reduce):
            layout = self._chunked.sum_layout(task.chunk, len(task.parts))
            return tasks.ReduceDone(SizedPayload(layout, b"", f"total {task.round} {task.chunk} {task.parts}"))
        if isinstance(task, tasks.Inspect):
            return tasks.InspectDone({part.worker: None for part in task.parts}, {part.worker: None for part in task.parts})
        if isinstance(task, tasks.Measure):
            return tasks.InspectDone({share.worker: None for share in task.shares}, {share.worker: None for share in task.shares})
        if isinstance(task, tasks.Apply | tasks.LocalStep):
            self.version = task.round + 1
            return tasks.ApplyDone("00" * 32 if task.wants_digest else None)
        if isinstance(task, tasks.Merge):
            return tasks.ApplyDone("00" * 32 if task.wants_digest else None)
        if isinstance(task, tasks.Displace):
            layout = self._format.layout(part_size(self.spec, task.round, self.num_parameters))
            return tasks.DisplaceDone(SizedPayload(layout, b"", f"displacement {self.name} {task.round}"))
        if isinstance(task, tasks.Snapshot):
            return self._snapshot(task)
        if isinstance(task, tasks.Restore):
            self.version = task.version
            return tasks.RestoreDone(task.version)
        if isinstance(task, tasks.Evaluate | tasks.Probe):
            tokens = self.spec.tokens_per_micro_batch
            if self._is_last:
                return tasks.EvaluateDone(loss=tokens * math.log(self.vocab), tokens=tokens)
            return tasks.EvaluateDone(output=self._output(f"evaluate {task.index}"))
        raise AssertionError(f"{type(task).__name__} is not modelled; report this as a bug")

    def _collect(self, task: tasks.Collect) -> tasks.CollectDone:
        tag = f"sum {self.name} {task.round} {task.indices}"
        layout = self._format.layout(self.num_parameters) if self.spec.sync_every is None else COMMITMENT_LAYOUT
        pieces: tuple[Payload, ...] = ()
        if self.spec.is_butterfly:
            layout = hashes_layout(self.num_parameters)
            chunks = range(len(self._chunked.bounds))
            pieces = tuple(SizedPayload(self._chunked.piece_layout(chunk), b"", f"{tag} {chunk}") for chunk in chunks)
        layout = (*layout, *extra_layout(self.spec, self.index, task.round))
        return tasks.CollectDone(SizedPayload(layout, b"", tag), pieces=pieces)

    def _forward(self, task: tasks.Forward) -> tasks.ForwardDone:
        if not self._is_last:
            return tasks.ForwardDone(output=self._output(f"forward {self.name} {task.round} {task.index}"))
        loss = self.spec.tokens_per_micro_batch * math.log(self.vocab)
        return tasks.ForwardDone(loss=loss, gradient=None if self.index == 0 else self._gradient(task.round, task.index))

    def _output(self, tag: str) -> SizedPayload:
        labels, entry = entry_shapes(self.spec, self.index + 1)
        ids = ("u2" if self.vocab <= 65536 else "i4") if self.spec.context is not None else "i8"
        return SizedPayload((self._row("z", entry), ("ids", ids, labels)), b"", tag)

    def _gradient(self, round_: int, index: int) -> SizedPayload:
        _, entry = entry_shapes(self.spec, self.index)
        return SizedPayload((self._row("g", entry),), b"", f"backward {self.name} {round_} {index}")

    def _row(self, name: str, shape: tuple[int, ...]) -> tuple[str, str, tuple[int, ...]]:
        count, dtype = self._codec.row(shape[-1])
        return name, CODES[dtype], (*shape[:-1], count)

    def _snapshot(self, task: tasks.Snapshot) -> tasks.SnapshotDone:
        state = SizedState(STATE_COPIES * self._dtype.itemsize * self.num_parameters)
        return tasks.SnapshotDone(task.version, state, hashlib.sha256(f"{self.index} {task.version}".encode()).hexdigest())
