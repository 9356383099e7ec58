"""A thousand workers for an hour of virtual time, and a hundred with real arithmetic: what they cost on this machine.

The thousand run the workers' own protocol; arithmetic, data and signatures are modelled by their size. A micro-batch takes a
worker four seconds, forward and backward. The hundred train a small network on real data, and sign for each other. Their peer is
Flower's simulation of a hundred clients that train as many layers, each all of them, in an environment of its own that is made
when this runs and removed afterwards; where it cannot be made there is no peer, and the figure says why.

The right answers come first: where nothing is computed every loss is that of a model that has learned nothing, and a worker is
busy for its micro-batches' four seconds each; where it is, the first loss is that of a guess and changes, Flower's too.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import torch

import pluralis_lab as pl
from benchmarks.result import Result
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines.virtual import VirtualSwarm
from pluralis_lab.models.cost import stage_flops_per_token
from pluralis_lab.worker import worker_name

STAGES, QUICK_STAGES, REPLICAS = 125, 16, 8
MICRO_BATCHES = 16
"""Of a head, a round. A pipeline of 125 stages that waits for all of them computes a tenth of the time, which is its nature."""
MICRO_BATCH_S, HOUR_S = 4.0, 3600.0
VOCAB = 50_257
TARGET_S = 120.0
ROUNDS_AT_MOST = 1000

LAYERS, QUICK_LAYERS, WIDTH = 10, 3, 64
SAMPLES = 16
"""Of a head replica and of a client, a round."""
ROUNDS, QUICK_ROUNDS, REPEATS = 6, 3, 3
SHARE_OF_FLOWER = 0.1
GUESS_WITHIN = 0.3
"""Nats by which a first loss may differ from that of guessing one of ten classes: weights are drawn."""

FLOWER = "flwr[simulation]==1.15.2"
INSTALL_S, SIMULATE_S = 400.0, 300.0


class NoPeerError(Exception):
    """Flower cannot be had here."""


def run(*, quick: bool) -> list[Result]:
    """Simulate both sizes, and Flower beside the small one."""
    torch.set_num_threads(1)
    layers = QUICK_LAYERS if quick else LAYERS
    rounds = QUICK_ROUNDS if quick else ROUNDS
    repeats = 1 if quick else REPEATS
    # Before the thousand: what these leave in the process's memory made the hundred's rounds half as long again, and Flower's
    # are computed in a process of their own.
    ours = statistics.median(hundred(layers, rounds) for _ in range(repeats))
    hour = thousand(QUICK_STAGES if quick else STAGES, quick=quick)
    workers = f"{layers * layers} workers, real arithmetic"
    try:
        theirs = flower(layers, rounds)
    except NoPeerError as error:
        why = f"{workers}; no peer: {error}"
        return [hour, Result("scale.worker_round", "ms", None, 1000 * ours, repeats, note=why)]
    note = f"seconds of this machine for a round of a worker over Flower's for a round of a client; {workers}"
    return [
        hour,
        Result("scale.share_of_Flower", "x", None if quick else SHARE_OF_FLOWER, ours / theirs, repeats, note=note),
        Result("scale.worker_round", "ms", None, 1000 * ours, repeats, peer=1000 * theirs, peer_name=FLOWER, note=workers),
    ]


def thousand(stages: int, *, quick: bool) -> Result:
    """Time an hour of `stages` x `REPLICAS` workers."""
    spec = pl.RunSpec(
        model=pl.GPT(n_layer=stages, n_head=32, d_model=4096, context=2048),
        stages=stages,
        replicas=REPLICAS,
        boundary=pl.Subspace(rank=64),
        sync=pl.FullSync(payload="bfloat16"),
        steps=ROUNDS_AT_MOST,
        batch_size=MICRO_BATCHES,
        micro_batches=MICRO_BATCHES,
        eval_every=0,
        eval_batches=1,
        checkpoint_every=ROUNDS_AT_MOST,
    )
    losses: dict[int, float] = {}
    busy: list[float] = []

    def on_report(worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        if kind == "round":
            losses.setdefault(body["round"], body["loss"])
        elif kind == "work" and worker == worker_name(REPLICAS):  # in the second stage, which has a block and nothing else
            busy.append(body["compute_s"])

    names = [worker_name(number) for number in range(spec.num_workers)]
    keys = {name: HotKey.from_seed(name.encode()) for name in names}
    block_flops = 3 * spec.tokens_per_micro_batch * stage_flops_per_token(spec, 1, VOCAB)
    begin = time.perf_counter()
    swarm = VirtualSwarm(
        spec,
        None,
        run_id="00" * 32,
        links=pl.Links("80mbit", latency_ms=50),
        keys=keys,
        on_report=on_report,
        vocab=VOCAB,
        device_flops=block_flops / MICRO_BATCH_S,
    )
    swarm.run(should_stop=lambda: swarm.now >= HOUR_S)
    seconds = time.perf_counter() - begin
    assert swarm.now >= HOUR_S, f"the simulation ended after {swarm.now} of {HOUR_S} virtual seconds"
    assert all(math.isclose(loss, math.log(VOCAB)) for loss in losses.values()), f"losses {losses}"
    assert all(math.isclose(each, MICRO_BATCHES * MICRO_BATCH_S, rel_tol=0.02) for each in busy), f"busy for {busy} s a round"
    note = (
        f"{spec.num_workers:,} workers ({stages} stages x {REPLICAS}), {MICRO_BATCH_S:g} s a micro-batch, "
        f"{MICRO_BATCHES} a head and round, {len(losses)} rounds, {swarm.num_events:,} events"
    )
    return Result("scale.hour", "s", None if quick else TARGET_S, seconds, 1, note=note)


def hundred(layers: int, rounds: int) -> float:
    """Return the seconds of this machine that a round of one of `layers` x `layers` workers takes, without the first round."""
    spec = pl.RunSpec(
        model=pl.MLP(widths=(64, *[WIDTH] * (layers - 1), 10)),
        data="digits",
        stages=layers,
        replicas=layers,
        boundary=pl.Dense(),
        optimizer=pl.SGD(lr=0.1, warmup=0),
        steps=rounds + 1,
        batch_size=SAMPLES,
        micro_batches=1,
        eval_every=0,
        eval_batches=1,
        checkpoint_every=rounds + 1,
    )
    ended: dict[int, float] = {}
    losses: dict[int, float] = {}

    def on_report(worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        if kind == "round":
            ended.setdefault(body["round"], time.perf_counter())
            losses.setdefault(body["round"], body["loss"])

    names = [worker_name(number) for number in range(spec.num_workers)]
    keys = {name: HotKey.from_seed(name.encode()) for name in names}
    with tempfile.TemporaryDirectory() as home:
        corpus = open_corpus("digits", context=None, home=Path(home))
        links = pl.Links("80mbit", latency_ms=50)
        VirtualSwarm(spec, corpus, run_id="00" * 32, links=links, keys=keys, on_report=on_report).run()
    assert len(losses) == rounds + 1, f"{len(losses)} of {rounds + 1} rounds"
    _check([losses[number] for number in range(rounds + 1)], "pluralis_lab")
    return (ended[rounds] - ended[0]) / rounds / spec.num_workers


def flower(layers: int, rounds: int) -> float:
    """Return the seconds that a round of one of `layers` x `layers` clients takes Flower. Raises NoPeerError."""
    with tempfile.TemporaryDirectory(prefix="pl-flower-") as folder:
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=True)
        python = str(environment / "bin" / "python")
        _command([python, "-m", "pip", "install", "--quiet", FLOWER], INSTALL_S, f"{FLOWER} cannot be installed")
        borrowed = "\n".join(path for path in sys.path if path.endswith("site-packages"))
        packages = next((environment / "lib").glob("python*/site-packages"))
        (packages / "zz_borrowed.pth").write_text(f"{borrowed}\n")  # torch and scikit-learn, behind what Flower brings
        script = Path(__file__).parent / "peers" / "flower.py"
        arguments = [layers * layers, rounds + 1, layers, WIDTH, SAMPLES]
        shown = _command([python, str(script), *map(str, arguments)], SIMULATE_S, "Flower's simulation does not run here")
    told = json.loads(shown.splitlines()[-1])
    _check(told["losses"], "Flower")
    return statistics.fmean(told["seconds"][1:]) / (layers * layers)


def _check(losses: list[float], whose: str) -> None:
    """Require that a network was trained: ten deep layers that begin with a guess, and change."""
    assert abs(losses[0] - math.log(10)) < GUESS_WITHIN, f"{whose} begins with a loss of {losses[0]}, no guess of ten classes"
    assert all(map(math.isfinite, losses)), f"{whose} has the losses {losses}"
    assert losses[-1] != losses[0], f"{whose} trains nothing: {losses}"


def _command(command: list[str], limit_s: float, what: str) -> str:
    """Run and return what was printed; raise NoPeerError with the last line of its errors."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise NoPeerError(f"{what} in {limit_s:g} s") from None
    if done.returncode:
        raise NoPeerError(f"{what}: {(done.stderr.strip().splitlines() or ['no output'])[-1][:160]}")
    return done.stdout
