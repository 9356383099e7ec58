"""Two stages of one thread each, asynchronous, beside a bare loop with two threads and PyTorch's own pipeline (1F1B over gloo).

A synchronous pipeline of two stages and M micro-batches is idle for 1/(M+1) of its time: that bubble is what the asynchronous
schedule has to be worth. The right answers come first: both peers must have the same losses, and ours the same loss before its
first step, and one as low at the end.
"""

import json
import statistics
import sys
from pathlib import Path

import pluralis_lab as pl
from benchmarks.engine_run import Timed, in_process_of_its_own, swarm, temporary_home
from benchmarks.result import Result
from benchmarks.single import bare_loop, check_same_losses

SKIP = 15
AS_LOW_NATS = 0.35
"""A gradient that is a step late costs something; a wrong one would cost much more at this length."""


def run(*, quick: bool) -> list[Result]:
    """Measure tokens a second of all three in turns, for each number of micro-batches."""
    rounds, repeats, counts = (25, 1, (4,)) if quick else (50, 5, (2, 4, 8))
    results = []
    for count in counts:
        spec = pl.RunSpec(
            model=pl.GPT(n_layer=6, n_head=4, d_model=128, context=128),
            stages=2,
            micro_batches=count,
            steps=rounds,
            eval_every=0,
            eval_batches=1,
            checkpoint_every=rounds,
            epoch_rounds=rounds,
        )
        with temporary_home() as home:
            results += _compare(spec, home / "spec.json", repeats)
    return results


def _compare(spec: pl.RunSpec, file: Path, repeats: int) -> list[Result]:
    count = spec.micro_batches
    file.write_bytes(spec.to_json())
    ours: list[float] = []
    bare: list[float] = []
    pipelined: list[float] = []
    for repeat in range(repeats):
        engine = swarm(spec.replace(schedule="async"), skip=SKIP)
        loop = bare_loop(str(file), spec, threads=2)
        peer = _torch_pipeline(str(file), spec)
        check_same_losses(peer.losses, loop.losses)
        check_same_losses(engine.losses[:1], loop.losses[:1])
        late = statistics.mean(engine.losses[-5:]) - statistics.mean(loop.losses[-5:])
        assert late < AS_LOW_NATS, f"the asynchronous run ends {late:.2f} nats above the synchronous one"
        for figures, timed in ((ours, engine), (bare, loop), (pipelined, peer)):
            figures.append(timed.tokens_per_s)
        print(
            f"  M={count}, {repeat + 1}/{repeats}: {ours[-1]:,.0f} against {bare[-1]:,.0f} and {pipelined[-1]:,.0f} tokens/s",
            file=sys.stderr,
        )
    over_bare = [own / other for own, other in zip(ours, bare, strict=True)]
    over_1f1b = [own / other for own, other in zip(ours, pipelined, strict=True)]
    return [
        Result(
            name=f"pipeline.over_bare_loop_m{count}",
            unit="x",
            target=0.95,
            at_least=True,
            measured=statistics.median(over_bare),
            repeats=repeats,
            note=f"tokens/s over a bare loop's, two threads, {count} micro-batches; {min(over_bare):.2f} to {max(over_bare):.2f}",
        ),
        Result(
            name=f"pipeline.over_1f1b_m{count}",
            unit="x",
            target=0.95 * (count + 1) / count,
            at_least=True,
            measured=statistics.median(over_1f1b),
            repeats=repeats,
            note=f"tokens/s over torch's 1F1B, {count} micro-batches; {min(over_1f1b):.2f} to {max(over_1f1b):.2f}",
        ),
        Result(
            name=f"pipeline.tokens_per_s_m{count}",
            unit="tokens/s",
            target=None,
            at_least=True,
            measured=statistics.median(ours),
            peer=statistics.median(pipelined),
            peer_name="torch.distributed.pipelining 1F1B",
            repeats=repeats,
            note=f"2 stages x 1 replica, async, {count} micro-batches",
        ),
    ]


def _torch_pipeline(spec_file: str, spec: pl.RunSpec) -> Timed:
    out = json.loads(in_process_of_its_own("torch_pipeline", spec_file, spec.steps, SKIP))
    tokens = (spec.steps - SKIP) * spec.num_micro_batches * spec.tokens_per_micro_batch
    return Timed(out["losses"], tokens / out["seconds"])
