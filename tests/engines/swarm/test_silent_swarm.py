"""SIGSTOP and SIGCONT of real workers: the others go on, and whoever was stopped takes part again, without having died."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.store import Event
from tests.engines.swarm.conftest import PEOPLE, small_spec


def pid_of(run: pl.Run, worker: str) -> int:
    told = [event for event in run.events("worker.state") if event.worker == worker and event.body.get("pid")]
    return int(told[-1].body["pid"])


def wait_for_state(run: pl.Run, worker: str, state: str, *, after: float, within_s: float) -> Event:
    """Return the event that says that `worker` has come to `state` since `after`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for event in run.events("worker.state"):
            if event.worker == worker and event.body["state"] == state and event.time >= after:
                return event
        time.sleep(0.1)
    pytest.fail(f"{worker} is not {state} after {within_s} s; {run.state}")


@pytest.mark.drawn("what dies", keep=1)
def test_a_stopped_worker_is_set_aside_and_comes_back(home: Path) -> None:
    run = pl.launch(small_spec(steps=100_000, epoch_rounds=1000, eval_every=0), account="lab-a", participants=PEOPLE)
    run.wait(round=15, timeout_s=60)
    pid, stopped_at = pid_of(run, "worker-3"), time.time()
    os.kill(pid, signal.SIGSTOP)
    try:
        aside = wait_for_state(run, "worker-3", "aside", after=stopped_at, within_s=60)
        assert aside.body["by"] == "worker-2"
        assert aside.body["silent_s"] >= 4
        here = run.metrics()["loss"].dropna().size
        run.wait(round=here + 20, timeout_s=90)
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it was killed"
    finally:
        os.kill(pid, signal.SIGCONT)
    back = wait_for_state(run, "worker-3", "active", after=aside.time, within_s=60)
    run.wait(round=back.round + 10, timeout_s=60)
    run.stop()
    events = run.events("worker.state", "worker.round", "round")
    assert not [event for event in events if event.body.get("state") == "dead"]
    row = run.workers().set_index("worker").loc["worker-3"]
    assert (row["incarnation"], row["deaths"]) == (1, 0)
    works = {event.worker for event in events if event.kind == "worker.round" and event.time > back.time}
    assert works == {"worker-0", "worker-1", "worker-2", "worker-3"}
    tokens = run.spec.num_micro_batches * run.spec.tokens_per_micro_batch
    counted: dict[tuple[int, int], int] = {}
    for event in events:
        if event.kind == "worker.round":
            place = int(event.worker.removeprefix("worker-")) // 2, event.round
            counted[place] = counted.get(place, 0) + event.body["tokens"]
    assert all(count <= tokens for count in counted.values())
    rounds = [event.round for event in events if event.kind == "round"]
    assert rounds == list(range(len(rounds)))
    assert run.audit().ok


@pytest.mark.deep
def test_when_a_whole_stage_is_stopped_nobody_is_set_aside(home: Path) -> None:
    """Longer than anybody's patience: but who wakes up late itself does not blame the others for that."""
    run = pl.launch(small_spec(steps=100_000, epoch_rounds=1000, eval_every=0), account="lab-a")
    run.wait(round=10, timeout_s=60)
    pids = [pid_of(run, worker) for worker in ("worker-2", "worker-3")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(8)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    run.wait(round=run.metrics()["loss"].dropna().size + 20, timeout_s=90)
    run.stop()
    assert {event.body["incarnation"] for event in run.events("worker.state") if "incarnation" in event.body} == {0}


@pytest.mark.deep
def test_a_run_with_a_stopped_worker_is_replayed_as_it_was(home: Path) -> None:
    run = pl.launch(small_spec(steps=90, epoch_rounds=30), account="lab-a", participants=PEOPLE, recorded=True)
    run.wait(round=15, timeout_s=60)
    pid, stopped_at = pid_of(run, "worker-2"), time.time()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for_state(run, "worker-2", "aside", after=stopped_at, within_s=60)
    finally:
        os.kill(pid, signal.SIGCONT)
    run.wait(timeout_s=90)
    run.stop()
    replayed = run.replay()
    assert replayed.ok, replayed.differences[:5]
    assert replayed.num_rounds == 90
    assert run.audit().ok
