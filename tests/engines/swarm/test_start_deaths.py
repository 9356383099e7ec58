"""SIGKILL of a worker that has started its libp2p daemon and has not said its address yet."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.errors import RunError
from tests.engines.swarm.conftest import (
    PEOPLE,
    assert_all_gone,
    descendants_of,
    private_folder,
    small_spec,
    wait_for,
)

TIMEOUT_S = 60.0
POLL_S = 0.002
"""Another process's daemon and its socket's file: there is nothing to wait on but the process table and the folder."""


def daemons_in(folder: Path, worker: str = "") -> list[psutil.Process]:
    """Return the live libp2p daemons whose socket is in `folder`, of all workers or of one ("worker-2.0-"), orphans too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "p2pd" and any(f"{folder}/{worker}" in argument for argument in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:  # a zombie, which has no command line, is none either
            continue
    return found


def kill_with_a_new_daemon(
    folder: Path, worker: str, *, listens: bool, meanwhile: Callable[[], object] = lambda: None
) -> psutil.Process:
    """SIGKILL a starting worker as soon as its daemon is there, or as soon as that listens; return the daemon.

    The worker is stopped meanwhile: so it cannot open its connection to the daemon, nor tell an address, and `meanwhile` is
    called before anybody can miss it.
    """
    end = time.monotonic() + TIMEOUT_S
    while not (daemons := daemons_in(folder, worker)):
        assert time.monotonic() < end, f"no daemon of {worker}* came up"
        time.sleep(POLL_S)
    daemon = daemons[0]
    pid = daemon.ppid()
    os.kill(pid, signal.SIGSTOP)
    while listens and not list(folder.glob(f"{worker}p2pd-*.sock")):
        assert time.monotonic() < end, f"the daemon of {worker}* does not listen"
        time.sleep(POLL_S)
    meanwhile()
    os.kill(pid, signal.SIGKILL)
    return daemon


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("listens", [False, True], ids=["its daemon starts", "its daemon listens"])
def test_a_founder_killed_while_it_starts_fails_the_run_and_leaves_nothing(home: Path, listens: bool) -> None:
    run = pl.launch(small_spec(steps=100_000), account="lab-a", participants=PEOPLE)
    folder = private_folder(run)
    family: list[psutil.Process] = []
    daemon = kill_with_a_new_daemon(folder, "worker-2.0-", listens=listens, meanwhile=lambda: family.extend(descendants_of(run)))
    killed_at = time.time()
    with pytest.raises(RunError, match=r"worker-2 died while the run was starting \(killed by SIGKILL\)"):
        run.wait(timeout_s=TIMEOUT_S)
    assert run.state == "failed"
    (error,) = run.events("error")
    assert (error.worker, error.time - killed_at < 15) == ("worker-2", True)
    assert_all_gone([*family, daemon, *daemons_in(folder)])
    assert daemons_in(folder) == []
    assert not folder.exists()
    assert not run.events("round")


@pytest.mark.drawn("what dies", keep=1)
def test_a_restarted_worker_killed_while_it_starts_is_started_again(home: Path) -> None:
    run = pl.launch(small_spec(steps=60), account="lab-a", participants=PEOPLE)
    run.wait(round=3, timeout_s=TIMEOUT_S)
    folder = private_folder(run)
    run.kill("worker-3")
    for incarnation, listens in ((1, False), (2, True)):
        daemon = kill_with_a_new_daemon(folder, f"worker-3.{incarnation}-", listens=listens)
        assert_all_gone([daemon])
    run.wait(timeout_s=2 * TIMEOUT_S)

    def is_back() -> bool:
        worker = run.workers().set_index("worker").loc["worker-3"]
        return bool((worker["state"], worker["incarnation"], worker["deaths"]) == ("serving", 3, 3))

    wait_for(is_back)  # which may come only after the last round
    assert [event.round for event in run.events("round")] == list(range(60))
    assert not run.events("error")
    # What is there is of the four that live: a daemon's socket and its client's for each.
    assert len(daemons_in(folder)) == 4
    assert {file.name.split("-p2p")[0] for file in folder.glob("worker-*")} == {
        "worker-0.0",
        "worker-1.0",
        "worker-2.0",
        "worker-3.3",
    }
    report = run.audit()
    assert report.ok, str(report)
    run.stop()
    assert not folder.exists()
