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
    losses: dict[Arm, dict[float, float]] = {}
    for (arm, rate), (_, after) in zip(jobs, ended, strict=True):
        losses.setdefault(arm, {})[rate] = after
    return compared(losses, steps, has_target=not quick)


def compared(losses: dict[Arm, dict[float, float]], steps: int, *, has_target: bool) -> list[Result]:
    """Return the best loss of each arm over that of the first, `FullSync`; each note says which rates were tried.

    losses : in nats, by arm and rate
    """
    first, *others = losses
    best = {arm: min(of_arm.values()) for arm, of_arm in losses.items()}
    shown = f"{REPLICAS} replicas, {steps} rounds of {REPLICAS} x 8 x 64 tokens"
    results = [
        Result(
            name=f"sync_quality.over_FullSync ({arm.name})",
            unit="x",
            target=arm.target if has_target else None,
            measured=best[arm] / best[first],
            repeats=1,
            shown=True,
            note=f"validation loss over FullSync's; {shown}, {_rates(losses[arm])}, FullSync {_rates(losses[first])}",
        )
        for arm in others
    ]
    return [
        *results,
        *(
            Result(f"sync_quality.loss ({arm.name})", "nats", None, best[arm], 1, note=f"validation, {_rates(of_arm)}")
            for arm, of_arm in losses.items()
        ),
    ]


def _rates(losses: dict[float, float]) -> str:
    """Return the rate of the least loss, and among which it was."""
    best = min(losses, key=lambda rate: losses[rate])
    tried = f"of {', '.join(f'{rate:g}' for rate in sorted(losses))}" if len(losses) > 1 else "the only one tried"
    return f"lr {best:g} ({tried})"


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
