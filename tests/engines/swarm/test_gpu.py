"""Workers on a GPU: beside a plain loop of one process there, replicas that agree, and one that comes to a live run."""

import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import pluralis_lab as pl
from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.learning.optimizers import build_optimizer, learning_rate
from pluralis_lab.learning.reference import whole_model

DEVICE = "cuda:0"
FIGURES = Path(__file__).parents[3] / "build" / "benchmarks" / "gpu.json"
WARM_UP = 10
"""Rounds left out of both figures: kernels are loaded and memory is taken in them."""
SPEC = pl.RunSpec(
    model=pl.GPT(n_layer=8, n_head=8, d_model=512, context=256),
    stages=2,
    schedule="async",
    optimizer=pl.NAdam(),
    batch_size=32,
    micro_batches=4,
    steps=80,
    epoch_rounds=40,
    eval_every=0,
    checkpoint_every=80,
    precision="bfloat16",
)

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(540)]


@dataclass
class Busy:
    """Per cent of the time in which the GPU computed, asked ten times a second."""

    percents: list[int] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.percents) if self.percents else float("nan")


@contextmanager
def utilisation() -> Iterator[Busy]:
    busy, done = Busy(), threading.Event()

    def ask() -> None:
        while not done.wait(0.1):
            busy.percents.append(torch.cuda.utilization(0))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield busy
    finally:
        done.set()
        asking.join()


def plain_loop(spec: pl.RunSpec, corpus: Corpus) -> tuple[float, float]:
    """Train the whole model in this process on the same micro-batches; return tokens a second and the last mean loss."""
    stages = [stage.to(DEVICE) for stage in whole_model(spec, corpus.info().vocab)]
    optimizers = [build_optimizer(stage, spec.optimizer) for stage in stages]
    began, loss = 0.0, torch.zeros((), device=DEVICE)
    for round_ in range(spec.steps):
        if round_ == WARM_UP:
            torch.cuda.synchronize()
            began = time.perf_counter()
        loss = torch.zeros((), device=DEVICE)
        for index in range(spec.num_micro_batches):
            batch = corpus.micro_batch(spec.seed, round_, index, spec.micro_batch_size)
            ids = torch.as_tensor(batch.inputs).to(torch.int64).pin_memory().to(DEVICE, non_blocking=True)
            x = ids[:, :-1]
            for stage in stages:
                x = stage(x)
            share = stages[-1].loss_sum(x, ids[:, 1:]) / (spec.num_micro_batches * spec.tokens_per_micro_batch)
            share.backward()
            loss += share.detach()
        for optimizer in optimizers:
            optimizer.lr = learning_rate(spec.optimizer, round_)
            optimizer.step()
            optimizer.zero_grad()
    torch.cuda.synchronize()
    rounds = spec.steps - WARM_UP
    return rounds * spec.num_micro_batches * spec.tokens_per_micro_batch / (time.perf_counter() - began), loss.item()


def keep(figures: dict[str, Any]) -> None:
    """Write what was measured to where the benchmarks keep theirs."""
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    FIGURES.write_text(json.dumps(rounded, indent=1) + "\n")


def test_two_stages_on_a_gpu_beside_a_plain_loop(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = open_corpus(SPEC.data, context=SPEC.context, home=home)
    with utilisation() as alone:
        loop_tokens_per_s, loop_loss = plain_loop(SPEC, corpus)
    torch.cuda.empty_cache()
    with utilisation() as together:
        run = pl.launch(SPEC, account="lab-a", devices=DEVICE, home=home).wait(round=WARM_UP, timeout_s=120)
        together.percents.clear()
        run.wait(timeout_s=300)
    assert set(run.workers()["device"]) == {DEVICE}
    rounds = run.metrics().dropna(subset=["loss"]).set_index("round")
    late = rounds[rounds.index >= WARM_UP]
    tokens_per_s = float(late["tokens"].sum() / late["seconds"].sum())
    figures = {
        "gpu": torch.cuda.get_device_name(0),
        "tokens_per_s": tokens_per_s,
        "utilisation_percent": together.mean,
        "plain_loop_tokens_per_s": loop_tokens_per_s,
        "ratio": tokens_per_s / loop_tokens_per_s,
        "plain_loop_utilisation_percent": alone.mean,
        "loss": float(rounds["loss"].iloc[-1]),
        "plain_loop_loss": loop_loss,
    }
    keep(figures)
    with capsys.disabled():
        print("\n" + FIGURES.read_text())
    assert len(rounds) == SPEC.steps
    assert figures["loss"] < 0.9 * rounds["loss"].iloc[0]
    assert run.audit().ok
    run.stop()


def small(**changes: Any) -> pl.RunSpec:
    """Two stages of a small model that wait for each other."""
    model = pl.GPT(n_layer=2, n_head=2, d_model=64, context=64)
    return SPEC.replace(model=model, schedule="sync", optimizer=pl.AdamW(), **changes)


def test_replicas_on_a_gpu_agree_to_the_bit_and_go_on_after_a_stop(home: Path) -> None:
    spec = small(replicas=2, steps=60, epoch_rounds=10, checkpoint_every=10)
    run = pl.launch(spec, account="lab-a", devices=DEVICE, home=home).wait(round=25, timeout_s=120).stop()
    run.resume().wait(timeout_s=200)  # an epoch whose replicas hold different weights would have ended the run
    assert len(run.metrics()["loss"].dropna()) == spec.steps
    assert run.audit().ok
    run.stop()


def test_a_worker_that_is_attached_on_a_gpu_takes_part_and_counts(home: Path) -> None:
    run = pl.launch(small(replicas=1, steps=20_000, epoch_rounds=50), account="lab-a", devices=DEVICE, home=home)
    try:
        run.wait(round=3, timeout_s=120)
        worker = run.attach(DEVICE, stage=1, account="lab-b")
        while not any(event.worker == worker.name and event.body["tokens"] for event in run.events("worker.round")):
            assert run.state == "running"
            run.wait(round=len(run.metrics()) + 5, timeout_s=60)
        row = run.workers().set_index("worker").loc[worker.name]
        assert (row["device"], row["stage"], row["state"]) == (DEVICE, 1, "active")
    finally:
        run.stop()
    assert run.contributions().set_index("worker").loc[worker.name, "share"] > 0
    assert run.audit().ok, str(run.audit())
