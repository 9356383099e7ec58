"""From `pluralis-lab join` to the joiner's first counted micro-batch: 5 M parameters over 100 Mbit/s.

The joiner is in a network namespace of its own, behind a link that the kernel shapes, with a home that has taken part before:
its account is there and its chain answers. From an empty home, which makes both first, is measured too. The run goes on
meanwhile, two stages of two replicas, gradients exchanged in 8 bits; as all share this machine's cores, and a joiner would have
its own, the run's processes give way to others (nice 10). The peer is `hivemind.Optimizer` with the same model: two peers train,
a third comes over the same link, from its process's start to its first step with the others.

The right answer comes first: what the joiner was counted for is receipted by others, and the audit finds every share in order.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pluralis_lab as pl
from benchmarks.engine_run import compile_library, end_in_order, hivemind_peer, temporary_home
from benchmarks.result import Result
from benchmarks.shaped import ShapedNetwork, shaped_network

TARGET_S = 6.0
RATE = "100mbit"
FIRST = "first micro-batch counted"


def run(*, quick: bool) -> list[Result]:
    """Measure both in turns, in seconds."""
    repeats = 1 if quick else 5
    compile_library()
    ours, cold, theirs = [], [], []
    with shaped_network(1) as network:
        network.shape(RATE)
        for repeat in range(repeats):
            ours.append(ours_s(network, from_empty=False))
            theirs.append(hivemind_s(network))
            cold.append(ours_s(network, from_empty=True))
            print(
                f"  {repeat + 1}/{repeats}: {ours[-1]:.2f} s against {theirs[-1]:.2f} s, from an empty home {cold[-1]:.2f} s",
                file=sys.stderr,
                flush=True,
            )
    return [
        Result(
            name="join.first_counted",
            unit="s",
            target=TARGET_S,
            measured=statistics.median(ours),
            peer=statistics.median(theirs),
            peer_name="a third peer of hivemind.Optimizer, whole model, to its first step with the others",
            repeats=repeats,
            note=f"`pluralis-lab join` to the first counted micro-batch, 4.9 M parameters in 2 stages x 2, {RATE}; "
            f"{min(ours):.1f} to {max(ours):.1f}",
        ),
        Result(
            name="join.from_an_empty_home",
            unit="s",
            target=None,
            measured=statistics.median(cold),
            repeats=repeats,
            note=f"the same, with a home that makes its account and chain first; {min(cold):.1f} to {max(cold):.1f}",
        ),
    ]


def spec_of(stages: int, replicas: int) -> pl.RunSpec:
    """Return the run: 4.9 M parameters, more rounds than are waited for."""
    return pl.RunSpec(
        model=pl.GPT(n_layer=6, n_head=4, d_model=256, context=64),
        stages=stages,
        replicas=replicas,
        boundary=pl.Dense(),
        sync=pl.FullSync(payload="int8"),
        steps=100_000,
        batch_size=4,
        micro_batches=2,
        epoch_rounds=20,
        eval_every=0,
        eval_batches=1,
        checkpoint_every=100_000,
    )


def ours_s(network: ShapedNetwork, *, from_empty: bool) -> float:
    """Return the seconds from the command's start to the line that tells of its first counted micro-batch."""
    (namespace,) = network.addresses
    joined_home = tempfile.mkdtemp(prefix="pl-bench-join-")
    if not from_empty:
        pl.Chain.embedded(home=joined_home).account("default")
    with temporary_home():
        with giving_way():
            run = pl.launch(spec_of(2, 2), lifetime="kernel", host=network.gateway)
        try:
            run.wait(round=5, timeout_s=120)
            invitation = run.invite()
            run.wait(round=10, timeout_s=120)  # the invitation has to reach somebody
            begin = time.perf_counter()
            shell = subprocess.Popen(
                ["ip", "netns", "exec", namespace, sys.executable, "-m", "pluralis_lab.cli", "join", str(invitation)],
                env={**os.environ, "PLURALIS_LAB_HOME": joined_home, "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            seconds = _seconds_to(shell, FIRST, begin)
            joiner = next(row["name"] for row in run.info["workers"] if row.get("remote"))
            epochs = len(run.events("epoch"))
            while len(run.events("epoch")) < epochs + 2:
                assert run.state == "running", run.info["reason"]
                time.sleep(0.1)
        finally:
            run.stop()
            shell.wait(30)
            pl.Chain.embedded(home=joined_home).stop()
            shutil.rmtree(joined_home)
        assert run.audit().ok, str(run.audit())
        share = run.contributions().set_index("worker")["share"][joiner]
        assert share > 0, "what the joiner was counted for is not receipted"
    return seconds


def hivemind_s(network: ShapedNetwork) -> float:
    """Return the seconds from the third peer's start to its first step with the others."""
    ((namespace, address),) = network.addresses.items()
    with temporary_home() as home:
        file = home / "spec.json"
        file.write_bytes(spec_of(1, 1).to_json())
        with giving_way():
            peers = [hivemind_peer("hivemind_join", file, network.gateway)]
            try:
                entry = _line(peers[0])
                peers.append(hivemind_peer("hivemind_join", file, network.gateway, entry))
            except BaseException:
                end_in_order(peers)
                raise
        try:
            for _ in range(3):
                _step(peers[0])
            begin = time.perf_counter()
            third = hivemind_peer("hivemind_join", file, address, entry, within=("ip", "netns", "exec", namespace))
            peers.append(third)
            epoch = _step(third)
            seconds = time.perf_counter() - begin
            assert epoch > 3, f"the joiner is at epoch {epoch}: it has not got the others' state"
        finally:
            end_in_order(peers)
    return seconds


@contextmanager
def giving_way() -> Iterator[None]:
    """Have processes that are started here give way to others."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _seconds_to(shell: "subprocess.Popen[str]", text: str, begin: float) -> float:
    assert shell.stdout is not None
    told = []
    for line in shell.stdout:
        told.append(line)
        if line.startswith(text):
            return time.perf_counter() - begin
    raise AssertionError(f"joining ended with {shell.wait()}: {''.join(told)}")


def _step(peer: "subprocess.Popen[str]") -> int:
    """Wait for the peer's next step and return its epoch."""
    while not (line := _line(peer)).startswith("stepped"):
        pass
    return int(line.split()[2])


def _line(peer: "subprocess.Popen[str]") -> str:
    assert peer.stdout is not None
    line = peer.stdout.readline().strip()
    assert line, f"a peer of hivemind ended with {peer.wait()} and said nothing"
    return line
