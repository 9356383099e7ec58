"""What it costs in quality to synchronise replicas seldom: `SliceSync` and `DiLoCo` against `FullSync` at equal samples.

Four replicas of two virtual stages. Routes are drawn by the seed, so micro-batches meet other replicas in every round, and the
validation loss is the mean over all of those routes; each arm has the best of its rates. `SliceSync` exchanges a tenth of the
weights, after every round (60 rotations through all of them) and after every third (20).

The right answer comes first: before its first step every arm must have the same loss.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pluralis_lab as pl
from benchmarks.engine_run import temporary_home
from benchmarks.result import Result

REPLICAS, STEPS, QUICK_STEPS = 4, 600, 60
FRACTION = 0.1
AT_ONCE = 2
RATES = (2e-3, 4e-3, 8e-3, 16e-3)


@dataclass(frozen=True)
class Arm:
    """A rule, and the most that its loss may be over that of `FullSync`."""

    name: str
    sync: pl.FullSync | pl.DiLoCo | pl.SliceSync
    target: float | None = None


ARMS = (
    Arm("FullSync", pl.FullSync()),
    Arm("SliceSync every round", pl.SliceSync(fraction=FRACTION, every=1), target=1.05),
    Arm("SliceSync every 3 rounds", pl.SliceSync(fraction=FRACTION, every=3)),
    Arm("DiLoCo every 20 rounds", pl.DiLoCo(inner_steps=20)),
)


def spec_of(arm: Arm, rate: float, steps: int) -> pl.RunSpec:
    """Return the run of `arm` with `rate`."""
    return pl.RunSpec(
        model=pl.GPT(n_layer=4, n_head=4, d_model=48, context=64),
        stages=2,
        replicas=REPLICAS,
        boundary=pl.Dense(),
        sync=arm.sync,
        optimizer=pl.AdamW(lr=rate),
        steps=steps,
        batch_size=8,
        micro_batches=1,
        eval_every=0,
        eval_batches=64,
        checkpoint_every=steps,
        epoch_rounds=steps,
    )


def run(*, quick: bool) -> list[Result]:
    """Train every arm with every rate, two at a time."""
    steps = QUICK_STEPS if quick else STEPS
    jobs = [(arm, rate) for arm in ARMS for rate in (RATES[1:2] if quick else RATES)]
    with temporary_home(), ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(lambda job: train(job[0], job[1], steps), jobs))
    first = {round(before, 6) for before, _ in ended}
    assert len(first) == 1, f"the arms begin with different losses: {first}"
    best: dict[str, tuple[float, float]] = {}
    for (arm, rate), (_, after) in zip(jobs, ended, strict=True):
        if arm.name not in best or after < best[arm.name][0]:
            best[arm.name] = (after, rate)
    full, full_rate = best[ARMS[0].name]
    shown = f"{REPLICAS} replicas, {steps} rounds of {REPLICAS} x 8 x 64 tokens, best of {len(RATES)} rates"
    results = [
        Result(
            name=f"sync_quality.over_FullSync ({arm.name})",
            unit="x",
            target=None if quick else arm.target,
            measured=best[arm.name][0] / full,
            repeats=1,
            shown=True,
            note=f"validation loss over FullSync's; {shown}: {best[arm.name][1]:g}, FullSync {full_rate:g}",
        )
        for arm in ARMS[1:]
    ]
    losses = [
        Result(f"sync_quality.loss ({name})", "nats", None, loss, 1, note=f"validation, lr {rate:g}")
        for name, (loss, rate) in best.items()
    ]
    return [*results, *losses]


def train(arm: Arm, rate: float, steps: int) -> tuple[float, float]:
    """Simulate, and return the first training loss and the last validation loss, in nats."""
    simulated = pl.simulate(spec_of(arm, rate, steps))
    try:
        simulated.wait()
        metrics = simulated.metrics()
    finally:
        simulated.stop()
    before, after = float(metrics["loss"].dropna().iloc[0]), float(metrics["validation_loss"].dropna().iloc[-1])
    print(f"  {arm.name}, lr {rate:g}: {after:.3f} nats", file=sys.stderr, flush=True)
    return before, after
