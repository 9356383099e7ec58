"""A text of this test's own, stages driven by hand through one round after the other, and no threads beside them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec

CONTEXT = 12


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The order of a sum depends on the number of threads; these tests compare to the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder: Path = tmp_path_factory.mktemp("text")
    text = "".join(f"line {n}: the square of {n} is {n * n}\n" for n in range(400))
    (folder / "text.txt").write_text(text)
    return open_corpus(f"path:{folder / 'text.txt'}", context=CONTEXT, home=folder)


@pytest.fixture
def make_spec() -> Callable[..., RunSpec]:
    def make(**fields) -> RunSpec:
        model = {"n_layer": 4, "n_head": 2, "d_model": 16, "context": CONTEXT, **fields.pop("model", {})}
        return RunSpec(**{"model": GPT(**model), "stages": 3, "batch_size": 4, "micro_batches": 2, "dtype": "float64", **fields})

    return make


class Pipeline:
    """All stages of one replica, called one after the other in this process as workers would be."""

    def __init__(self, spec: RunSpec, corpus: Corpus) -> None:
        self.spec = spec
        self.stages = [StageCompute(spec, stage, corpus) for stage in range(spec.stages)]
        self.forward_payloads: list[tasks.Payload] = []
        self.backward_payloads: list[tasks.Payload] = []

    def micro_batch(self, round_: int, index: int) -> float:
        """Send one micro-batch forth and back and return its summed loss."""
        wire = None
        for stage in self.stages[:-1]:
            wire = stage.run(tasks.Forward(round_, index, wire)).output
            self.forward_payloads.append(wire)
        done = self.stages[-1].run(tasks.Forward(round_, index, wire))
        gradient = done.gradient
        for stage in reversed(self.stages[:-1]):
            self.backward_payloads.append(gradient)
            gradient = stage.run(tasks.Backward(round_, index, gradient)).gradient
        return done.loss

    def collect(self, round_: int, indices: list[int]) -> tuple[float, list[tasks.Payload]]:
        """Work on `indices`; return their summed loss and each stage's summed weight gradient."""
        loss = sum(self.micro_batch(round_, index) for index in indices)
        return loss, [stage.run(tasks.Collect(round_, tuple(indices))).gradient for stage in self.stages]

    def step(self, round_: int) -> tuple[float, list[torch.Tensor]]:
        """Train one round alone; return the mean loss and each stage's gradient."""
        indices = list(range(self.spec.num_micro_batches))
        loss, gradients = self.collect(round_, indices)
        for stage, gradient in zip(self.stages, gradients, strict=True):
            stage.run(tasks.Apply(round_, (tasks.Part("worker-0", tuple(indices), gradient),)))
        targets = self.spec.num_micro_batches * self.spec.tokens_per_micro_batch
        return loss / targets, [gradient.tensors()["g"] for gradient in gradients]

    def digests(self) -> list[str]:
        return [stage.state_digest() for stage in self.stages]


@pytest.fixture
def pipeline(corpus: Corpus) -> Callable[..., Pipeline]:
    return lambda spec, other=None: Pipeline(spec, other or corpus)
