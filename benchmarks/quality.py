"""What a boundary's codec costs and gives: bytes, step time, steps to a loss, and the total time over 80 Mbit/s and 50 ms.

Steps to the target come from real arithmetic in virtual time. The time of a step is planned for a model of the size that many
machines are for: a small one's messages cross 80 Mbit/s in less than the 50 ms of the link, and no codec would matter. What
trains is that model made narrower: as many blocks and stages, the same share of the width in each message. Its links are slower
by what its messages are smaller and its machines by what its arithmetic is less, so that its gradients are as late.

The right answers come first: a codec that loses nothing gives the same first loss however the model is cut, and a step of the
small run takes what the plan of the large one says.
"""

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import pluralis_lab as pl
from benchmarks.result import Result
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.engines.virtual import VirtualSwarm
from pluralis_lab.models.cost import stage_flops_per_token
from pluralis_lab.worker import worker_name

STAGES = (8, 4)
RATE_MBIT, LATENCY_MS = 80.0, 50.0
FASTEST_MBIT = 100_000.0
"""Where the search for the rate at which the order changes ends: faster than any link between two homes."""
RATES = (4e-3, 2e-3, 8e-3)
"""Of learning; the likeliest first, because a rate is given up when it has taken longer than the best before it."""
TARGET_LOSS, QUICK_TARGET_LOSS = 2.4, 3.0
"""Nats, validation: what `Dense` in 8 stages reaches after about 220 steps with its best rate; the text's unigrams have 3.3."""
MOST, QUICK_MOST = 400, 60
"""Steps after which a run has not reached it: nearly twice what `Dense` takes."""
EVERY = 10
"""Steps between two validation losses; between them the step at which the target is crossed is interpolated."""

LARGE = pl.GPT(n_layer=8, n_head=32, d_model=4096, context=2048)
"""A quarter of the blocks of a model of seven billion weights, so that a stage has one or two."""
LARGE_SEQUENCES, LARGE_VOCAB = 1, 50_257
DEVICE_FLOPS = 50e12
"""What a large graphics card reaches in bfloat16. A block's micro-batch, forward and backward, then takes it about 0.05 s, and
0.2 s (`Subspace`) to 1.7 s (`Dense`) to the next stage: links decide, as they do for whoever trains over a home's."""

SMALL = pl.GPT(n_layer=8, n_head=4, d_model=64, context=64)
SMALL_SEQUENCES = 8
NARROWER = (LARGE.d_model * LARGE.context * LARGE_SEQUENCES) / (SMALL.d_model * SMALL.context * SMALL_SEQUENCES)
"""How many times smaller the messages of what trains are."""
SMALL_LINKS = pl.Links(f"{1000 * RATE_MBIT / NARROWER:g}kbit", latency_ms=LATENCY_MS)
AS_PLANNED = 0.1
"""Share by which a step of the small run may differ: signatures, token ids and scales do not shrink with the width."""
AS_CUT = 0.02
"""Nats by which a first loss may differ between cuts: boundaries are in bfloat16."""


@dataclass(frozen=True)
class Arm:
    """A codec by the width of the stream, and how many times less in total `Subspace` is to take, at least.

    `Dense` is sent in bfloat16, as `Subspace` is: with float32 it would have twice the bytes for nothing.
    """

    name: str
    boundary: Callable[[int], pl.Subspace | pl.Dense | pl.Int8 | pl.TopK]
    target: float | None = None
    loses: bool = False


OURS = Arm("Subspace", lambda width: pl.Subspace(rank=width // 8))
ARMS = (
    OURS,
    Arm("Dense", lambda width: pl.Dense(wire="bfloat16"), target=2.0),
    Arm("Int8", lambda width: pl.Int8(), target=1.3, loses=True),
    Arm("TopK", lambda width: pl.TopK(count=width // 16), loses=True),  # 4 bytes each: as many as those of Subspace
)


@dataclass(frozen=True)
class Trained:
    """One run of the small model.

    steps : until the target; None where it was not reached. loss, first_loss : nats, validation at the end, training at the start
    delay : of the first stage's gradients, in steps
    """

    rate: float
    steps: float | None
    loss: float
    first_loss: float
    delay: float


def run(*, quick: bool) -> list[Result]:
    """Train every arm with its rates, plan its steps, and find the link rates at which the order changes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        corpus = open_corpus("stdlib", context=SMALL.context, home=Path(home))
        trained = {(arm, stages): best(arm, stages, corpus, quick=quick) for stages in STAGES for arm in ARMS}
    for (arm, stages), one in trained.items():
        small, large = small_step_s(arm, stages, corpus.info().vocab), plan(arm, stages, RATE_MBIT).round_s
        assert abs(small / large - 1) < AS_PLANNED, f"{arm.name}, {stages} stages: a step takes {small} s, planned {large}"
        apart = abs(one.first_loss - trained[arm, STAGES[0]].first_loss)
        assert arm.loses or apart < AS_CUT, f"{arm.name}: the first loss depends on the cut by {apart} nats"
    compared = [result for stages in STAGES for result in comparisons(stages, trained, quick=quick)]
    flips = [result for stages in STAGES for result in orders(stages, trained)]
    columns = [result for stages in STAGES for arm in ARMS for result in four_columns(arm, stages, trained[arm, stages])]
    return [*compared, *flips, *columns]


def comparisons(stages: int, trained: dict[tuple[Arm, int], Trained], *, quick: bool) -> list[Result]:
    """Return how many times longer than `Subspace` each other arm takes in total."""
    ours = total_s(OURS, stages, trained, RATE_MBIT)
    results = []
    for arm in ARMS[1:]:
        own, steps = total_s(arm, stages, trained, RATE_MBIT), trained[arm, stages].steps
        reached = f"{trained[OURS, stages].steps or MOST:.0f} steps to {steps or MOST:.0f}"
        missed = "" if steps is not None else f"; {arm.name} does not reach the loss: at least"
        results.append(
            Result(
                f"quality.total_time_under ({arm.name}, {stages} stages)",
                "x",
                None if quick else arm.target,
                0.0 if ours is None else (own or MOST * plan(arm, stages, RATE_MBIT).round_s) / ours,
                1,
                at_least=True,
                note=f"its virtual time to {TARGET_LOSS} nats over Subspace's, async, {RATE_MBIT:g} Mbit/s, {LATENCY_MS:g} ms, "
                f"{reached}, best of {len(RATES)} rates{missed}",
            )
        )
    return results


def orders(stages: int, trained: dict[tuple[Arm, int], Trained]) -> list[Result]:
    """Return the link rates above which what takes longer at 80 Mbit/s takes less, for each two arms.

    Steps to the target are those measured at 80 Mbit/s. How late gradients are, which they depend on, is bounded by the
    micro-batches under way, and these are as many at any rate.
    """
    results = []
    for index, one in enumerate(ARMS):
        for other in ARMS[index + 1 :]:
            if trained[one, stages].steps is None or trained[other, stages].steps is None:
                continue
            rate, ahead = flip_mbit(one, other, stages, trained)
            flips = rate < FASTEST_MBIT
            note = f"{ahead.name} is ahead below it" if flips else f"{ahead.name} is ahead up to it: no flip"
            name = f"quality.flip ({one.name} and {other.name}, {stages} stages)"
            results.append(Result(name, "Mbit/s", None, rate, 1, note=note, shown=flips))
    return results


def four_columns(arm: Arm, stages: int, trained: Trained) -> list[Result]:
    """Return bytes, step time, steps and total time of an arm; the last one's note has all four, for the README."""
    label = f"({arm.name}, {stages} stages)"
    planned = plan(arm, stages, RATE_MBIT)
    size = (planned.bytes_per_round["forward"] + planned.bytes_per_round["backward"]) / (stages - 1)
    steps = trained.steps if trained.steps is not None else float(MOST)
    missed = "" if trained.steps is not None else "not reached; "
    how = f"{missed}lr {trained.rate:g}, {trained.loss:.3f} nats, head {trained.delay:.0f} late"
    total = (
        f"{steps:.0f} steps of {planned.round_s:.3g} s in virtual time, {size / 1e6:.3g} MB a step and boundary, both ways; {how}"
    )
    return [
        Result(f"quality.bytes {label}", "MB", None, size / 1e6, 1, note="a step and boundary, both ways"),
        Result(f"quality.step {label}", "s", None, planned.round_s, 1, note="virtual, planned for the large model"),
        Result(f"quality.steps {label}", "", None, steps, 1, note=how),
        Result(f"quality.total {label}", "s", None, steps * planned.round_s, 1, note=total, shown=True),
    ]


def flip_mbit(one: Arm, other: Arm, stages: int, trained: dict[tuple[Arm, int], Trained]) -> tuple[float, Arm]:
    """Return (the rate at which the two change places, who is ahead below it); the fastest rate where they do not.

    Between 80 Mbit/s and `FASTEST_MBIT`, to a tenth of it: a step takes at least as long over a slower link.
    """

    def leads(rate_mbit: float) -> bool:
        own, rival = (total_s(arm, stages, trained, rate_mbit) for arm in (one, other))
        return (own or math.inf) <= (rival or math.inf)

    low, high, ahead = RATE_MBIT, FASTEST_MBIT, leads(RATE_MBIT)
    if leads(high) == ahead:
        return high, one if ahead else other
    while high / low > 1.1:
        middle = round(math.sqrt(low * high), 1)
        low, high = (middle, high) if leads(middle) == ahead else (low, middle)
    return math.sqrt(low * high), one if ahead else other


def total_s(arm: Arm, stages: int, trained: dict[tuple[Arm, int], Trained], rate_mbit: float) -> float | None:
    """Return virtual seconds to the target over links of such a rate; None where it was not reached."""
    steps = trained[arm, stages].steps
    return None if steps is None else steps * plan(arm, stages, rate_mbit).round_s


@cache
def plan(arm: Arm, stages: int, rate_mbit: float) -> pl.Plan:
    """Plan the large model's step with `arm`."""
    links = pl.Links(f"{rate_mbit:g}mbit", latency_ms=LATENCY_MS)
    return pl.plan(spec_of(arm, stages, LARGE, LARGE_SEQUENCES), links=links, device_flops=DEVICE_FLOPS, vocab=LARGE_VOCAB)


def spec_of(arm: Arm, stages: int, model: pl.GPT, sequences: int, **changes: Any) -> pl.RunSpec:
    """Return the run of `arm`, an update a micro-batch."""
    fields: dict[str, Any] = {
        "model": model,
        "stages": stages,
        "boundary": arm.boundary(model.d_model),
        "schedule": "async",
        "optimizer": pl.NAdam(),
        "batch_size": sequences,
        "micro_batches": 1,
    }
    return pl.RunSpec.model_validate({**fields, **changes})


def best(arm: Arm, stages: int, corpus: Corpus, *, quick: bool) -> Trained:
    """Train with every rate, and return the run that takes the fewest steps; where none gets there, the one nearest to it."""
    found: Trained | None = None
    for rate in RATES[:1] if quick else RATES:
        most = math.ceil(found.steps / EVERY) * EVERY if found and found.steps else QUICK_MOST if quick else MOST
        one = train(arm, stages, rate, corpus, most, QUICK_TARGET_LOSS if quick else TARGET_LOSS)
        print(f"  {stages} stages, {arm.name}, lr {rate:g}: {one.loss:.3f} nats, {one.steps} steps", file=sys.stderr, flush=True)
        if found is None or (one.steps or math.inf, one.loss) < (found.steps or math.inf, found.loss):
            found = one
    assert found is not None
    return found


def train(arm: Arm, stages: int, rate: float, corpus: Corpus, most: int, target: float) -> Trained:
    """Train the small model until its validation loss is at the target, `most` steps at most."""
    settings = {"optimizer": pl.NAdam(lr=rate), "eval_every": EVERY, "eval_batches": 8, "steps": most}
    spec = spec_of(arm, stages, SMALL, SMALL_SEQUENCES, **settings, checkpoint_every=most, epoch_rounds=most)
    losses: dict[int, float] = {}
    firsts: dict[int, float] = {}
    delays = [0.0]

    def on_report(worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        if kind == "validation":
            losses[body["round"]] = body["loss"]
        elif kind == "round":
            firsts.setdefault(body["round"], body["loss"])
        elif kind == "work":
            delays.append(body.get("delay", 0.0))

    names = [worker_name(number) for number in range(spec.num_workers)]
    VirtualSwarm(
        spec,
        corpus,
        run_id="00" * 32,
        links=SMALL_LINKS,
        keys={name: HotKey.from_seed(name.encode()) for name in names},
        on_report=on_report,
        device_flops=small_flops(arm, stages, corpus.info().vocab),
    ).run(should_stop=lambda: min(losses.values(), default=math.inf) <= target)
    points = [(0, firsts[0]), *sorted(losses.items())]
    return Trained(rate, crossing(points, target), points[-1][1], firsts[0], max(delays))


def small_flops(arm: Arm, stages: int, vocab: int) -> float:
    """Return the speed of a machine on which a stage of the small model takes as long as one of the large model does."""
    small, large = spec_of(arm, stages, SMALL, SMALL_SEQUENCES), spec_of(arm, stages, LARGE, LARGE_SEQUENCES)
    own = small.tokens_per_micro_batch * stage_flops_per_token(small, 1, vocab)
    return DEVICE_FLOPS * own / (large.tokens_per_micro_batch * stage_flops_per_token(large, 1, LARGE_VOCAB))


def small_step_s(arm: Arm, stages: int, vocab: int) -> float:
    """Return virtual seconds of a step of what trains, without validations."""
    spec = spec_of(arm, stages, SMALL, SMALL_SEQUENCES)
    return pl.plan(spec, links=SMALL_LINKS, device_flops=small_flops(arm, stages, vocab), vocab=vocab).round_s


def crossing(points: list[tuple[int, float]], target: float) -> float | None:
    """Return the step at which the line through `points` comes down to `target`; None where it does not."""
    for (before, high), (after, low) in pairwise(points):
        if low <= target:
            return before + (after - before) * (high - target) / (high - low)
    return None
