"""One home with one chain daemon for all swarm tests of a module, and small specs that start in seconds."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.engines.control import read_control
from tests.homes import shared_home

PEOPLE = ["lab-a", "lab-b"]

POLL_S = 0.01
"""Another process's record: there is nothing to wait on but the record."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home whose chain daemon starts with the first test that needs it."""
    with shared_home() as path:
        yield path


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Path]:
    """The home of somebody else, whose chain is another one."""
    path = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    yield path
    pl.Chain.embedded(home=path).stop()
    shutil.rmtree(path)


def small_spec(**changes: Any) -> pl.RunSpec:
    """Two stages, two replicas, 40 rounds of a tiny GPT on the standard library."""
    fields: dict[str, Any] = {
        "model": pl.GPT(n_layer=2, n_head=2, d_model=32, context=64),
        "stages": 2,
        "replicas": 2,
        "boundary": pl.Subspace(8),
        "steps": 40,
        "batch_size": 8,
        "micro_batches": 2,
        "epoch_rounds": 10,
        "eval_every": 20,
        "checkpoint_every": 10,
    }
    return pl.RunSpec(**{**fields, **changes})


def simulated_losses(run: pl.Run, **changes: Any) -> list[float]:
    """Return the losses that the simulation of a launched run has: in this process, as one of its own takes seconds to start."""
    # Here, because kernels and scripts of the tests import this module, too, and load no torch for it.
    from pluralis_lab.corpus import open_corpus
    from tests.engines.conftest import run_virtual

    spec = run.spec.replace(**changes)
    corpus = open_corpus(spec.data, context=spec.context, home=run.path.parent.parent, expected_hash=run.info["corpus"]["hash"])
    losses = run_virtual(spec, corpus).losses
    return [losses[number] for number in range(spec.steps)]


def descendants_of(run: pl.Run) -> list[psutil.Process]:
    """Return the run's supervisor and every process under it: fork server, workers, p2pd."""
    control = read_control(run._directory)
    assert control is not None
    supervisor = psutil.Process(control["pid"])
    return [supervisor, *supervisor.children(recursive=True)]


def living(processes: list[psutil.Process], *, within_s: float) -> list[psutil.Process]:
    """Return which of `processes` have not ended after `within_s` seconds. A zombie has ended: its parent has not looked yet."""
    end = time.monotonic() + within_s
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < end:
        time.sleep(POLL_S)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def assert_all_gone(processes: list[psutil.Process]) -> None:
    """Check that `processes` end."""
    alive = living(processes, within_s=60)
    assert not alive, [" ".join(process.cmdline()) for process in alive]


def wait_for(is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until `is_so`, which must come in time."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(POLL_S)


def folders_of_sockets(processes: list[psutil.Process]) -> set[Path]:
    """Return the folders of all sockets between workers and their libp2p daemons: hivemind's own are in a public one."""
    return {
        Path(socket.laddr).parent
        for process in processes
        for socket in process.net_connections("unix")
        if "p2p" in Path(socket.laddr).name
    }


def private_folder(run: pl.Run) -> Path:
    """Return the folder of all sockets of a run that is running."""
    return Path(json.loads((run.path / "control.json").read_text())["socket"]).parent


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as a worker has: the arithmetic is then the same to the bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
