"""Four stages of two replicas over links of 10 Mbit/s: how much of their speed on unshaped links do they keep?

Real processes, each in a network namespace of its own, whose link the kernel shapes (token bucket, both directions). One run is
measured in turns, shaped and unshaped, so that both meet the same machine. The replicas exchange slices (`SliceSync`), as one
would over such links. The right answer comes first: every boundary must carry the bytes a token that its codec says, measured at
the sockets. `Dense` is measured beside it.
"""

import statistics
import sys
import time
from dataclasses import dataclass

import pluralis_lab as pl
from benchmarks.engine_run import temporary_home
from benchmarks.result import Result
from benchmarks.shaped import ShapedNetwork, shaped_network
from pluralis_lab.learning.wire_cost import codec_bytes_per_token

RATES: dict[str, tuple[str | None, ...]] = {"Subspace": (None, "10mbit", "80mbit"), "Dense": (None, "10mbit")}
TARGET = 0.9
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
        for name, boundary in (("Subspace", pl.Subspace(16)), ("Dense", pl.Dense())):
            found[name] = measured(spec_of(boundary), network, RATES[name], turns=turns, window_s=window_s)
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
    return results


def spec_of(boundary: pl.Subspace | pl.Dense) -> pl.RunSpec:
    """Return the run: more rounds than are waited for."""
    return pl.RunSpec(
        model=pl.GPT(n_layer=8, n_head=4, d_model=128, context=128),
        stages=4,
        replicas=2,
        boundary=boundary,
        schedule="async",
        optimizer=pl.NAdam(),
        sync=pl.SliceSync(0.05, 20),
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
        started = pl.launch(spec, lifetime="kernel", namespaces=network.addresses)
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
