"""Workers that die and come back all the time: does the run stall, does it learn the same, how much of its speed is left?

Four stages of three replicas, 300 rounds, 28 deaths, each worker back as an empty joiner. With real processes (killed with
SIGKILL) two more workers are attached, which makes thirty joins: the longest pause between two rounds while every stage has a
worker, and the final loss beside the same run without any of that. In virtual time: tokens a second over what the live workers
could give: the speed without deaths times the share of replicas that are live in the thinnest stage, averaged over time.

The right answer comes first: both runs must begin with the same loss, and every death must be in the record.
"""

import itertools
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pluralis_lab as pl
from benchmarks.engine_run import temporary_home
from benchmarks.result import Result

STAGES, REPLICAS = 4, 3
ROUNDS, QUICK_ROUNDS = 300, 30
DEATHS, QUICK_DEATHS = 28, 3
ATTACHED = 2
"""Workers that join and are none of those that died: with those who come back, thirty joins."""
SLOWNESS = 1e-3
"""Speed of the virtual machines: a micro-batch takes seconds, as with the models that many machines are for."""


def spec_of(rounds: int, **changes: Any) -> pl.RunSpec:
    """Return the run; the same model and data everywhere."""
    fields: dict[str, Any] = {
        "model": pl.GPT(n_layer=4, n_head=2, d_model=32, context=32),
        "stages": STAGES,
        "replicas": REPLICAS,
        "boundary": pl.Subspace(rank=8),
        "steps": rounds,
        "batch_size": 16,
        "micro_batches": 4,
        "eval_every": 0,
        "eval_batches": 32,
        "checkpoint_every": rounds,
        "epoch_rounds": rounds,
    }
    return pl.RunSpec.model_validate({**fields, **changes})


def run(*, quick: bool) -> list[Result]:
    """Run both engines, each without and with deaths."""
    rounds, deaths = (QUICK_ROUNDS, QUICK_DEATHS) if quick else (ROUNDS, DEATHS)
    share, waits = in_virtual_time(rounds, deaths)
    pause, ratio, plain_pause = with_processes(rounds, deaths)
    note = f"{STAGES} stages x {REPLICAS} replicas, {deaths} deaths in {rounds} rounds, each back as an empty joiner"
    return [
        Result(
            "churn.longest_pause",
            "s",
            None if quick else 5.0,
            pause,
            1,
            peer=plain_pause,
            peer_name="the same run without deaths",
            note=f"between two rounds, real processes killed with SIGKILL, two cores for twelve workers; {note}",
        ),
        Result(
            "churn.loss", "x", None if quick else 1.02, ratio, 1, note=f"final validation loss over that of no deaths; {note}"
        ),
        Result(
            "churn.virtual_speed",
            "",
            None if quick else 0.9,
            share,
            1,
            at_least=True,
            note=f"tokens/s over what the live workers could give, virtual time, async; {note}; {waits}",
        ),
    ]


def with_processes(rounds: int, deaths: int) -> tuple[float, float, float]:
    """Return the longest pause between rounds in seconds, the final loss over that without deaths, and the pause without."""
    results = {}
    with temporary_home():
        for number in (0, deaths):
            results[number] = trained(spec_of(rounds), number)
            print(f"  real, {number} deaths: {results[number]}", file=sys.stderr, flush=True)
    (plain_pause, plain_first, plain_last), (pause, first, last) = results[0], results[deaths]
    assert abs(first - plain_first) < 1e-6, f"the runs begin with different losses: {first} and {plain_first}"
    return pause, last / plain_last, plain_pause


def trained(spec: pl.RunSpec, deaths: int) -> tuple[float, float, float]:
    """Launch, kill at drawn rounds whom the stage can spare, and return the longest pause, the first and the last loss."""
    rng = random.Random(0)
    run = pl.launch(spec, lifetime="kernel")
    try:
        moments = rng.sample(range(5, spec.steps - 5), deaths + (ATTACHED if deaths else 0))
        comings = moments[deaths:]
        for moment in sorted(moments):
            run.wait(round=moment)
            if moment in comings:
                run.attach()
                continue
            active = defaultdict(list)
            for row in run.workers().to_dict("records"):
                if row["state"] == "active":
                    active[row["stage"]].append(row["worker"])
            spare = [worker for workers in active.values() if len(workers) > 1 for worker in workers]
            run.kill(rng.choice(spare))
        run.wait()
        metrics, states = run.metrics(), run.events("worker.state")
    finally:
        run.stop()
    found = sum(event.body["state"] == "dead" for event in states)
    assert found == deaths, f"{found} of {deaths} deaths are in the record"
    first, last = float(metrics["loss"].dropna().iloc[0]), float(metrics["validation_loss"].dropna().iloc[-1])
    return float(metrics["seconds"].dropna().max()), first, last


def in_virtual_time(rounds: int, deaths: int) -> tuple[float, str]:
    """Return the speed that is left over what it could be, and how long one round takes."""
    spec = spec_of(rounds, schedule="async", optimizer=pl.NAdam())
    speeds = {f"worker-{number}": SLOWNESS for number in range(spec.num_workers)}
    links = pl.Links("80mbit", latency_ms=50)
    with tempfile.TemporaryDirectory() as home:
        plain = simulated(spec, Path(home), links=links, speeds=speeds)
        away_s = 4 * plain / rounds
        churn = pl.Churn.drawn(spec, deaths=deaths, within_s=0.9 * plain, for_s=away_s)
        disturbed = simulated(spec, Path(home), links=links, speeds=speeds, churn=churn)
    possible = plain / thinnest_share(churn, spec, disturbed)
    print(f"  virtual: {plain:.0f} s without deaths, {disturbed:.0f} s with, {possible:.0f} s possible", file=sys.stderr)
    return possible / disturbed, f"a round takes {plain / rounds:.1f} s, a worker is away for {away_s:.1f} s"


def simulated(spec: pl.RunSpec, home: Path, **circumstances: Any) -> float:
    """Return the virtual seconds that the run takes."""
    run = pl.simulate(spec, home=home, **circumstances)
    try:
        run.wait()
        return run.events("round")[-1].time - run.events("worker.state")[0].time
    finally:
        run.stop()


def thinnest_share(churn: pl.Churn, spec: pl.RunSpec, until_s: float) -> float:
    """Return the share of replicas that are live in the thinnest stage, averaged over the time until then."""
    ends = sorted(
        {0.0, until_s, *(t for one in churn.absences for t in (one.at_s, one.at_s + (one.for_s or 0.0)) if t < until_s)}
    )
    total = 0.0
    for begin, end in itertools.pairwise(ends):
        away = [one.worker for one in churn.absences if one.at_s <= begin < one.at_s + (one.for_s or 0.0)]
        by_stage = [spec.stage_of(int(name.removeprefix("worker-"))) for name in away]
        most = max((by_stage.count(stage) for stage in by_stage), default=0)
        total += (end - begin) * (REPLICAS - most) / REPLICAS
    return total / until_s
