"""What late gradients cost, and how much of it the delay correction gives back: eight virtual stages, one update a micro-batch.

Arms: synchronous AdamW, asynchronous AdamW, and the corrected asynchronous NAdam (arXiv 2505.01099), whose stages have rates by
their delays; the same as it was published (`pl.NAdam()`, momentum 0.99, one rate); then what each part of the correction is
worth: without stashed weights, without the discount 1 - γ, with one rate for all stages, and without delays at all, which shows
what NAdam gains that has nothing to do with them. Each has its own best rate of four. One micro-batch an update in all of them,
so equal samples are equal updates; beside them the synchronous run whose updates are of four micro-batches, at equal samples.
The figure is the validation loss after the last step. Where a rate is large it depends on rounding: weights that differ by one
part in 10⁷ at first end up to 0.04 nats from each other.

The right answer comes first: before its first step every arm must have the same loss.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pluralis_lab as pl
from benchmarks.engine_run import temporary_home
from benchmarks.result import Result

STAGES, UPDATES, QUICK_UPDATES = 8, 600, 60
AT_ONCE = 2


@dataclass(frozen=True)
class Arm:
    """One way to train, and the rates to try it with."""

    name: str
    rates: tuple[float, ...]
    optimizer: Callable[[float], pl.AdamW | pl.NAdam]
    is_async: bool = True
    micro_batches: int = 1
    stashing: bool = True


def corrected(lr: float, *, discounted: bool = True, delay_power: float = 1.0) -> pl.NAdam:
    """Return the rule against delays; its second moment decays as AdamW's does by default."""
    return pl.NAdam(lr=lr, beta1=0.95, beta2=0.95, discounted=discounted, delay_power=delay_power)


RATES = (1e-3, 2e-3, 4e-3, 8e-3)
ARMS = (
    Arm("sync AdamW", RATES, lambda lr: pl.AdamW(lr=lr), is_async=False),
    Arm("async AdamW", (0.5e-3, 1e-3, 2e-3, 4e-3), lambda lr: pl.AdamW(lr=lr)),
    Arm("async NAdam, corrected", RATES, corrected),
    Arm("async NAdam as published", RATES, lambda lr: pl.NAdam(lr=lr)),
    Arm("async NAdam, corrected, no stash", RATES, corrected, stashing=False),
    Arm("async NAdam, not discounted", RATES, lambda lr: corrected(lr, discounted=False)),
    Arm("async NAdam, one rate for all stages", RATES, lambda lr: corrected(lr, delay_power=0.0)),
    Arm("sync NAdam", (2e-3, 4e-3, 8e-3, 16e-3), corrected, is_async=False),
    Arm("sync AdamW, 4 micro-batches an update", (2e-3, 4e-3, 8e-3, 16e-3), lambda lr: pl.AdamW(lr=lr), False, 4),
)


def spec_of(arm: Arm, rate: float, updates: int) -> pl.RunSpec:
    """Return the run of `arm` with `rate` that sees as many samples as `updates` single micro-batches."""
    return pl.RunSpec(
        model=pl.GPT(n_layer=STAGES, n_head=4, d_model=48, context=64),
        stages=STAGES,
        boundary=pl.Dense(),
        schedule="async" if arm.is_async else "sync",
        in_flight=STAGES if arm.is_async else None,
        stashing=arm.stashing,
        optimizer=arm.optimizer(rate),
        steps=updates // arm.micro_batches,
        batch_size=8 * arm.micro_batches,
        micro_batches=arm.micro_batches,
        eval_every=0,
        eval_batches=64,
        checkpoint_every=updates,
        epoch_rounds=updates,
    )


def run(*, quick: bool) -> list[Result]:
    """Train every arm with every rate, two at a time."""
    updates = QUICK_UPDATES if quick else UPDATES
    jobs = [(arm, rate) for arm in ARMS for rate in (arm.rates[1:2] if quick else arm.rates)]
    with temporary_home(), ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(lambda job: train(job[0], job[1], updates), jobs))
    first = {round(before, 6) for (arm, _), (before, _, _) in zip(jobs, ended, strict=True) if arm.micro_batches == 1}
    assert len(first) == 1, f"the arms begin with different losses: {first}"
    best: dict[str, tuple[float, float]] = {}
    for (arm, rate), (_, after, _) in zip(jobs, ended, strict=True):
        if arm.name not in best or after < best[arm.name][0]:
            best[arm.name] = (after, rate)
    late = [delay for (arm, _), (_, _, delay) in zip(jobs, ended, strict=True) if arm.is_async]
    waiting, plain, corrected = (best[name][0] for name in ("sync AdamW", "async AdamW", "async NAdam, corrected"))
    note = f"{STAGES} virtual stages, {updates} updates of 8 x 64 tokens, best of 4 rates an arm, head {max(late):.1f} late"
    shown = [
        Result(
            f"async_quality.loss ({name})",
            "nats",
            None,
            loss,
            1,
            note=f"validation after {updates} micro-batches, lr {rate:g}",
            shown=True,
        )
        for name, (loss, rate) in best.items()
    ]
    return [
        Result(
            name="async_quality.gap_closed",
            unit="",
            target=None if quick else 0.5,
            at_least=True,
            measured=(plain - corrected) / (plain - waiting),
            repeats=1,
            note=f"part of the gap between async and sync AdamW that the correction closes; {note}",
        ),
        *shown,
    ]


def train(arm: Arm, rate: float, updates: int) -> tuple[float, float, float]:
    """Simulate, and return the first loss, the last validation loss and the first stage's delay."""
    simulated = pl.simulate(spec_of(arm, rate, updates))
    try:
        simulated.wait()
        metrics, workers = simulated.metrics(), simulated.workers()
    finally:
        simulated.stop()
    before, after = float(metrics["loss"].dropna().iloc[0]), float(metrics["validation_loss"].dropna().iloc[-1])
    delays = workers["delay"].dropna()
    print(f"  {arm.name}, lr {rate:g}: {after:.3f} nats", file=sys.stderr)
    return before, after, float(max(delays, default=0.0))
