"""From `launch()` to the first optimizer step of six workers, cold, beside six peers of `hivemind.Optimizer`.

Cold: a home of its own, so the chain's daemon, the accounts, the corpus and the fork server are all started anew. The right
answer comes first: every worker must have made its first step, with the loss of an untrained model.
"""

import math
import statistics
import subprocess
import sys
import time

import pluralis_lab as pl
from benchmarks.engine_run import compile_library, end_in_order, hivemind_peer, temporary_home
from benchmarks.result import Result

WORKERS = 6
POLL_S = 0.01


def run(*, quick: bool) -> list[Result]:
    """Measure both in turns, in seconds."""
    repeats = 1 if quick else 5
    compile_library()
    fields = {"steps": 3, "eval_every": 0, "eval_batches": 1, "micro_batches": 2, "batch_size": 8}
    model = pl.GPT(n_layer=6, n_head=4, d_model=128, context=128)
    ours, theirs = [], []
    for repeat in range(repeats):
        ours.append(ours_s(pl.RunSpec(model=model, stages=3, replicas=2, **fields)))
        theirs.append(hivemind_s(pl.RunSpec(model=model, **fields)))
        print(f"  {repeat + 1}/{repeats}: {ours[-1]:.2f} s against {theirs[-1]:.2f} s", file=sys.stderr)
    return [
        Result(
            name="start.first_step",
            unit="s",
            target=6.0,
            measured=statistics.median(ours),
            peer=statistics.median(theirs),
            peer_name="six processes with hivemind.Optimizer, same model whole in each",
            repeats=repeats,
            note=f"launch() to the first step of six workers (3 stages x 2), cold; {min(ours):.1f} to {max(ours):.1f}",
        )
    ]


def ours_s(spec: pl.RunSpec) -> float:
    """Return the seconds from `launch()` until each worker has reported its first step."""
    with temporary_home():
        begin = time.perf_counter()
        started = pl.launch(spec, lifetime="kernel")
        try:
            while len({event.worker for event in started.events("worker.round")}) < WORKERS:
                assert started.state in ("starting", "running", "serving"), started.info["reason"]
                time.sleep(POLL_S)
            seconds = time.perf_counter() - begin
            loss = started.metrics()["loss"].iloc[0]
        finally:
            started.stop()
    _check_untrained(loss)
    return seconds


def hivemind_s(spec: pl.RunSpec) -> float:
    """Return the seconds from the first process's start until each peer has made its first step with the others."""
    with temporary_home() as home:
        file = home / "spec.json"
        file.write_bytes(spec.to_json())
        begin = time.perf_counter()
        peers = [hivemind_peer("hivemind_peer", file, WORKERS)]
        try:
            address = _line(peers[0])
            peers += [hivemind_peer("hivemind_peer", file, WORKERS, address) for _ in range(WORKERS - 1)]
            for peer in peers[1:]:
                _line(peer)
            losses = [float(_line(peer).removeprefix("stepped ")) for peer in peers]
            seconds = time.perf_counter() - begin
        finally:
            end_in_order(peers)
    for loss in losses:
        _check_untrained(loss)
    return seconds


def _line(peer: subprocess.Popen[str]) -> str:
    assert peer.stdout is not None
    line = peer.stdout.readline().strip()
    assert line, f"a peer of hivemind ended with {peer.wait()} and said nothing"
    return line


def _check_untrained(loss: float) -> None:
    assert abs(loss - math.log(256)) < 1, f"the first loss is {loss}, which is not that of an untrained model over bytes"
