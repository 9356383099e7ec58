"""Four stages of two replicas over links of 10 Mbit/s: how much of their speed on unshaped links do they keep?

Real processes, each in a network namespace of its own, whose link the kernel shapes (token bucket, both directions). One run is
measured in turns, shaped and unshaped, so that both meet the same machine. The replicas exchange slices (`SliceSync`), as one
would over such links. The right answer comes first: every boundary must carry the bytes a token that its codec says, measured at
the sockets. `Dense` is measured beside it.

What `pl.plan` says of such links is checked too: two workers, so that a link between two is the whole link of each, `Dense`, so
that the links decide. From the speed on unshaped links follows what the machine computes; the plan has to say the rest.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from itertools import islice

import pluralis_lab as pl
from benchmarks.engine_run import temporary_home
from benchmarks.result import Result
from benchmarks.shaped import ShapedNetwork, shaped_network
from pluralis_lab.learning.wire_cost import codec_bytes_per_token

RATES: dict[str, tuple[str | None, ...]] = {"Subspace": (None, "10mbit", "80mbit"), "Dense": (None, "10mbit")}
TARGET = 0.9
PLAN_RATE = "2mbit"
"""Slow enough for two workers to wait for the link and not for each other's arithmetic."""
AS_PLANNED = 0.85
"""Share of the planned speed that is reached at least: a plan knows no headers, no windows of TCP that open, no system calls."""
SETTLE_S = 4.0
"""After each change of the links, before rounds count: what was queued has gone, and paces are known anew."""


@dataclass(frozen=True)
class Measured:
    """Tokens a second by rate, one for each turn, and bytes a token that the boundaries carried."""

    speeds: dict[str | None, list[float]]
    forward_bytes: float


def run(*, quick: bool) -> list[Result]:
    """Measure both codecs."""
    turns, window_s = (1, 8.0) if quick else (5, 12.0)
    found = {}
    with shaped_network(8) as network:
        for name, boundary in (("Subspace", pl.Subspace(rank=16)), ("Dense", pl.Dense())):
            found[name] = measured(spec_of(boundary), network, RATES[name], turns=turns, window_s=window_s)
        two = measured(spec_of(pl.Dense(), stages=2, replicas=1), network, (None, PLAN_RATE), turns=turns, window_s=window_s)
    results = []
    for name, rates in RATES.items():
        speeds = {rate: statistics.median(found[name].speeds[rate]) for rate in rates}
        for rate in rates[1:]:
            has_target = (name, rate) == ("Subspace", "10mbit") and not quick
            shares = [a / b for a, b in zip(found[name].speeds[rate], found[name].speeds[None], strict=True)]
            results.append(
                Result(
                    f"slow_link.share_of_unshaped ({name}, {rate})",
                    "x",
                    TARGET if has_target else None,
                    statistics.median(shares),
                    turns,
                    peer=None,
                    at_least=True,
                    shown=True,
                    note=f"tokens/s at {rate} over unshaped, 4 stages x 2, d=128: {speeds[rate]:.0f} of {speeds[None]:.0f}, "
                    f"{found[name].forward_bytes:.0f} bytes a token forward; {min(shares):.2f} to {max(shares):.2f}",
                )
            )
    return [*results, over_plan(two, turns=turns, has_target=not quick)]


def over_plan(found: "Measured", *, turns: int, has_target: bool) -> Result:
    """Return how fast two workers were over slow links, over what is planned for them."""
    spec = spec_of(pl.Dense(), stages=2, replicas=1)
    unshaped, shaped = statistics.median(found.speeds[None]), statistics.median(found.speeds[PLAN_RATE])
    flops = 20e9
    for _ in range(4):  # nearly proportional to the speed of the machine, so this is more than enough
        flops *= unshaped / pl.plan(spec, links=pl.Links("10gbit", 0), device_flops=flops).tokens_per_s
    planned = pl.plan(spec, links=pl.Links(PLAN_RATE, 0), device_flops=flops).tokens_per_s
    return Result(
        f"slow_link.over_its_plan (Dense, {PLAN_RATE})",
        "x",
        AS_PLANNED if has_target else None,
        shaped / planned,
        turns,
        at_least=True,
        note=f"tokens/s of 2 stages x 1 over what pl.plan says: {shaped:.0f} of {planned:.0f}; {unshaped:.0f} unshaped",
    )


def spec_of(boundary: pl.Subspace | pl.Dense, *, stages: int = 4, replicas: int = 2) -> pl.RunSpec:
    """Return the run: more rounds than are waited for."""
    return pl.RunSpec(
        model=pl.GPT(n_layer=8, n_head=4, d_model=128, context=128),
        stages=stages,
        replicas=replicas,
        boundary=boundary,
        schedule="async",
        optimizer=pl.NAdam(),
        sync=pl.SliceSync(fraction=0.05, every=20) if replicas > 1 else pl.FullSync(),
        steps=100_000,
        batch_size=8,
        micro_batches=8,
        epoch_rounds=1000,
        eval_every=0,
        eval_batches=1,
        checkpoint_every=100_000,
    )


def measured(spec: pl.RunSpec, network: ShapedNetwork, rates: tuple[str | None, ...], *, turns: int, window_s: float) -> Measured:
    """Train `spec` and return its speed at each rate, in turns."""
    speeds: dict[str | None, list[float]] = {rate: [] for rate in rates}
    network.shape(None)
    with temporary_home():
        started = pl.launch(spec, lifetime="kernel", namespaces=dict(islice(network.addresses.items(), spec.num_workers)))
        try:
            started.wait(round=10, timeout_s=120)
            for turn in range(turns):
                for rate in rates:
                    network.shape(rate)
                    time.sleep(SETTLE_S)
                    speeds[rate].append(speed(started, window_s))
                    print(
                        f"  {turn + 1}/{turns} {rate or 'unshaped'}: {speeds[rate][-1]:.0f} tokens/s", file=sys.stderr, flush=True
                    )
            links = [event.body["links"] for event in started.events("worker.round")]
        finally:
            started.stop()
            network.shape(None)
    sent = [link for by_peer in links for link in by_peer.values()]
    forward = sum(link.get("forward_bytes", 0) for link in sent) / sum(link.get("forward_tokens", 0) for link in sent)
    expected = codec_bytes_per_token(spec, 256)[0]
    assert 0.95 * expected < forward < 1.3 * expected, f"{forward:.1f} bytes a token where the codec says {expected:.1f}"
    return Measured(speeds, forward)


def speed(started: pl.Run, window_s: float) -> float:
    """Return the tokens a second of the rounds that end within the next `window_s` seconds."""
    before = started.events("round")[-1]
    time.sleep(window_s)
    assert started.state == "running", started.info["reason"]
    after = started.events("round")[-1]
    rounds = (after.round or 0) - (before.round or 0)
    assert rounds > 0, "no round ended in the window"
    return rounds * spec_tokens(started.spec) / (after.time - before.time)


def spec_tokens(spec: pl.RunSpec) -> int:
    """Return the tokens of a round."""
    return spec.num_micro_batches * spec.tokens_per_micro_batch
