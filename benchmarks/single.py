"""What the engine costs: one stage, one replica, beside a bare torch loop of the same model, threads and batches.

The right answer comes first: both must have the same losses.
"""

import json
import statistics
import sys
from itertools import pairwise

import pluralis_lab as pl
from benchmarks.engine_run import Timed, in_process_of_its_own, swarm, temporary_home
from benchmarks.result import Result

SKIP = 15


def run(*, quick: bool) -> list[Result]:
    """Measure tokens a second, in turns. The first seconds of either, when processes and memory settle, are not counted."""
    rounds, repeats = (25, 1) if quick else (50, 5)
    spec = pl.RunSpec(
        model=pl.GPT(n_layer=6, n_head=4, d_model=128, context=128),
        steps=rounds,
        eval_every=0,
        eval_batches=1,
        checkpoint_every=rounds,
        epoch_rounds=rounds,
    )
    with temporary_home() as home:
        file = home / "spec.json"
        file.write_bytes(spec.to_json())
        ours: list[float] = []
        bare = [bare_loop(str(file), spec, threads=1).tokens_per_s]
        for repeat in range(repeats):
            engine = swarm(spec, skip=SKIP)
            peer = bare_loop(str(file), spec, threads=1)
            check_same_losses(engine.losses, peer.losses)
            ours.append(engine.tokens_per_s)
            bare.append(peer.tokens_per_s)
            print(f"  {repeat + 1}/{repeats}: {ours[-1]:,.0f} against {bare[-1]:,.0f} tokens/s", file=sys.stderr)
    # Beside the mean of the loops before and after it: what the machine does meanwhile changes within a minute.
    ratios = [2 * own / sum(around) for own, around in zip(ours, pairwise(bare), strict=True)]
    return [
        Result(
            name="single.share_of_the_bare_loop",
            unit="",
            target=0.95,
            at_least=True,
            measured=statistics.median(ratios),
            repeats=repeats,
            note="tokens/s of launch(1 stage x 1 replica) over those of a bare torch loop before and after, one thread each; "
            + _range(ratios),
        ),
        Result(
            name="single.tokens_per_s",
            unit="tokens/s",
            target=None,
            at_least=True,
            measured=statistics.median(ours),
            peer=statistics.median(bare),
            peer_name="a bare torch loop",
            repeats=repeats,
            note="GPT of 6 layers, d=128, context 128, 16 sequences a round in 4 micro-batches",
        ),
    ]


def bare_loop(spec_file: str, spec: pl.RunSpec, *, threads: int) -> Timed:
    """Train `spec` in a plain loop with so many threads, in a process of its own."""
    out = json.loads(in_process_of_its_own("bare_loop", spec_file, threads, spec.steps, SKIP))
    tokens = (spec.steps - SKIP) * spec.num_micro_batches * spec.tokens_per_micro_batch
    return Timed(out["losses"], tokens / out["seconds"])


def check_same_losses(ours: list[float], others: list[float], *, tolerance: float = 1e-3) -> None:
    """Raise AssertionError when the losses of any round differ by more than the rounding of float32 explains."""
    worst = max(abs(own - other) / other for own, other in zip(ours, others, strict=True))
    assert worst < tolerance, f"the losses differ by {worst:.2g}: the two do not train the same model on the same batches"


def _range(ratios: list[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f}"
