"""Replicas of speeds 1, 1, 1/2 and 1/4: how much of the sum of their speeds does a run reach?

In virtual time, with real arithmetic; a micro-batch takes seconds, as with the models that many machines are for, over links of
80 Mbit/s and 20 ms. Every stage has the same four machines. What they can give is the speed of four machines of speed 1 times
2.75 / 4. The peer is the same engine when replicas do not tell each other their pace, so that all get as many micro-batches.

The right answer comes first: without the asynchronous schedule all arms must have the same losses, which depend on the spec.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import pluralis_lab as pl
from benchmarks.result import Result
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.engines.virtual import VirtualSwarm
from pluralis_lab.worker import worker_name
from pluralis_lab.worker.pace import Pace

SPEEDS = (1.0, 1.0, 0.5, 0.25)
SLOWNESS = 1e-4
"""Of a machine of speed 1, over that of a core: a micro-batch of the small model here takes seconds."""
CONTEXT = 32
ROUNDS, QUICK_ROUNDS = 60, 24
TARGET = 0.9

ARMS: dict[str, dict[str, Any]] = {
    "three stages": {"stages": 3},
    "one stage": {"stages": 1, "boundary": pl.Dense()},
    "three stages, async": {"stages": 3, "schedule": "async", "optimizer": pl.NAdam(), "in_flight": 8},
    "three stages, async, default in_flight": {"stages": 3, "schedule": "async", "optimizer": pl.NAdam()},
}


@dataclass(frozen=True)
class Timed:
    """What a run took: virtual seconds a round once paces are known, and its losses."""

    round_s: float
    losses: list[float]


def run(*, quick: bool) -> list[Result]:
    """Measure every arm with equal machines, unequal ones, and unequal ones that are dealt to evenly."""
    torch.set_num_threads(1)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    results = []
    with tempfile.TemporaryDirectory() as home:
        corpus = open_corpus("stdlib", context=CONTEXT, home=Path(home))
        for arm, changes in ARMS.items():
            spec = spec_of(rounds, **changes)
            equal, unequal = trained(spec, corpus, (1.0,) * 4), trained(spec, corpus, SPEEDS)
            with mock.patch.object(Pace, "level", return_value=None):
                even = trained(spec, corpus, SPEEDS)
            for other in (unequal, even):
                assert spec.is_async or max(abs(a - b) for a, b in zip(equal.losses, other.losses, strict=True)) < 1e-4, arm
            possible = equal.round_s * len(SPEEDS) / sum(SPEEDS)
            share, peer = possible / unequal.round_s, possible / even.round_s
            print(f"  {arm}: {equal.round_s:.1f} s a round equal, {unequal.round_s:.1f} s unequal", file=sys.stderr, flush=True)
            batches = (
                f"{spec.max_in_flight} micro-batches under way a head" if spec.is_async else f"{spec.num_micro_batches} a round"
            )
            results.append(
                Result(
                    f"unequal.share_of_the_speeds ({arm})",
                    "",
                    None if quick or arm == "three stages, async, default in_flight" else TARGET,
                    share,
                    1,
                    peer=peer,
                    peer_name="as many micro-batches to each",
                    at_least=True,
                    note=f"tokens/s over the sum of speeds 1, 1, 1/2, 1/4, virtual time, {rounds} rounds, {batches}",
                )
            )
    return results


def spec_of(rounds: int, **changes: Any) -> pl.RunSpec:
    """Return the run of one arm."""
    fields: dict[str, Any] = {
        "model": pl.GPT(n_layer=3, n_head=2, d_model=32, context=CONTEXT),
        "replicas": len(SPEEDS),
        "boundary": pl.Subspace(rank=8),
        "steps": rounds,
        "batch_size": 8,
        "micro_batches": 4,
        "eval_every": 0,
        "eval_batches": 1,
        "checkpoint_every": rounds,
        "epoch_rounds": rounds,
    }
    return pl.RunSpec.model_validate({**fields, **changes})


def trained(spec: pl.RunSpec, corpus: Corpus, speeds: tuple[float, ...]) -> Timed:
    """Simulate `spec` on machines of such speeds in every stage."""
    ended: dict[int, float] = {}
    losses: dict[int, float] = {}

    def on_report(worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        if kind == "round":
            ended.setdefault(body["round"], at)
            losses.setdefault(body["round"], body["loss"])

    names = [worker_name(number) for number in range(spec.num_workers)]
    VirtualSwarm(
        spec,
        corpus,
        run_id="00" * 32,
        links=pl.Links("80mbit", latency_ms=20),
        keys={name: HotKey.from_seed(name.encode()) for name in names},
        on_report=on_report,
        speeds={name: SLOWNESS * speeds[number % spec.replicas] for number, name in enumerate(names)},
    ).run()
    skipped = spec.steps // 3
    return Timed((ended[spec.steps - 1] - ended[skipped - 1]) / (spec.steps - skipped), [losses[n] for n in range(spec.steps)])
