"""A real run in a home of its own, and how fast its rounds were."""

import compileall
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pluralis_lab as pl

PEER_END_S = 20.0
"""Its averager waits ten seconds for a process that does not answer."""


@dataclass(frozen=True)
class Timed:
    """Losses of all rounds in nats, and the tokens a second of the rounds after the first few."""

    losses: list[float]
    tokens_per_s: float


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Make an empty `$PLURALIS_LAB_HOME`, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="pl-bench-") as folder:
        before = os.environ.get("PLURALIS_LAB_HOME")
        os.environ["PLURALIS_LAB_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["PLURALIS_LAB_HOME"]
            else:
                os.environ["PLURALIS_LAB_HOME"] = before


def compile_library() -> None:
    """Compile the library's modules as its first use would, also where the environment has Python keep no bytecode.

    hivemind's and torch's are compiled when they are installed; a checkout's would be compiled anew in each process.
    """
    compileall.compile_dir(Path(pl.__file__).parent, quiet=1)


def swarm(spec: pl.RunSpec, *, skip: int) -> Timed:
    """Train `spec` with real workers; time the rounds after the first `skip`."""
    run = pl.launch(spec, lifetime="kernel")
    try:
        run.wait(round=spec.steps)
        rounds = sorted(run.events("round"), key=lambda event: event.round or 0)
    finally:
        run.stop()
    seconds = rounds[-1].time - rounds[skip - 1].time
    tokens = spec.num_micro_batches * spec.tokens_per_micro_batch * (len(rounds) - skip)
    return Timed([event.body["loss"] for event in rounds], tokens / seconds)


def in_process_of_its_own(module: str, *arguments: object) -> bytes:
    """Run a module of `benchmarks.peers` and return what it printed. Raises CalledProcessError with its errors shown."""
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]).stdout


def hivemind_peer(module: str, *arguments: object, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a peer of hivemind, a module of `benchmarks.peers` that is talked to by lines; `within`: words before the command."""
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *map(str, arguments)]
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [*within, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        start_new_session=True,  # with its DHT's processes, so that all of them can be ended
    )


def end_in_order(peers: Sequence[subprocess.Popen[str]]) -> None:
    """End peers of hivemind by the end of their input, so that they clean up behind them; those that do not end are killed."""
    for peer in peers:
        if peer.stdin is not None and not peer.stdin.closed:
            with suppress(BrokenPipeError):
                peer.stdin.close()
    for peer in peers:
        try:
            peer.wait(PEER_END_S)
        except subprocess.TimeoutExpired:
            peer.kill()
            peer.wait()
        with suppress(ProcessLookupError):  # its DHT's process and daemon outlive a peer that had to be killed
            os.killpg(peer.pid, signal.SIGKILL)
