"""A stage whose last worker dies pauses the run, which goes on from the last checkpoint by itself."""

from pathlib import Path

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.errors import RunError
from tests.engines.swarm.conftest import assert_all_gone, descendants_of, private_folder, small_spec, wait_for
from tests.engines.swarm.test_start_deaths import kill_with_a_new_daemon


def states_of(run: pl.Run) -> list[str]:
    return [event.body["state"] for event in run.events("run.state")]


@pytest.mark.drawn("what dies", keep=1)
def test_a_run_that_went_back_has_the_losses_and_the_shares_of_an_undisturbed_one(home: Path) -> None:
    spec = small_spec(steps=80, replicas=1, epoch_rounds=20)
    simulated = pl.simulate(spec)
    simulated.wait(timeout_s=60)
    run = pl.launch(spec, account="lab-a")
    run.wait(round=12, timeout_s=60)
    run.kill("worker-1")
    run.wait(timeout_s=90)
    assert states_of(run) == ["starting", "running", "paused", "starting", "running", "serving"]
    reasons = [event.body["reason"] for event in run.events("run.state")]
    assert reasons[2] == "stage 1 had no live replica left; all go back to the last checkpoint"
    version = int(reasons[3].removeprefix("stage 1 had no live replica left; all go on from round "))
    assert version in range(10, 80, 10)
    swarm, virtual = (one.metrics().set_index("round")["loss"].dropna() for one in (run, simulated))
    assert swarm.tolist() == pytest.approx(virtual.tolist(), rel=1e-4)
    workers = run.workers().set_index("worker")
    assert workers["state"].tolist() == ["serving", "serving"]
    assert workers["incarnation"].tolist() == [1, 1]
    assert workers["deaths"].tolist() == [0, 1]
    run.stop()
    report = run.audit()
    assert report.ok, str(report)
    assert sum(row["units"] for row in report.ownership.to_dict("records")) == sum(
        row["units"] for row in simulated.audit().ownership.to_dict("records")
    )


def test_whoever_dies_while_all_go_back_is_started_again(home: Path) -> None:
    run = pl.launch(small_spec(steps=100_000, checkpoint_every=2, replicas=1), account="lab-a")
    run.wait(round=5, timeout_s=60)
    folder = private_folder(run)
    run.kill("worker-1")
    kill_with_a_new_daemon(folder, "worker-0.1-", listens=False)
    run.wait(round=20, timeout_s=90)
    assert states_of(run) == ["starting", "running", "paused", "starting", "paused", "starting", "running"]
    family = descendants_of(run)
    run.stop()
    assert_all_gone(family)


def test_a_run_that_is_stopped_while_all_go_back_ends_in_order_and_resumes(home: Path) -> None:
    run = pl.launch(small_spec(steps=100_000, replicas=1), account="lab-a")
    run.wait(round=3, timeout_s=60)
    family: list[psutil.Process] = descendants_of(run)
    run.kill("worker-0")
    wait_for(lambda: "paused" in states_of(run))
    run.stop()
    assert run.state == "stopped"
    assert_all_gone(family)
    run.resume().wait(round=5, timeout_s=60)
    run.stop()


@pytest.mark.deep
def test_what_kills_a_stage_each_time_fails_the_run_in_the_end(home: Path) -> None:
    run = pl.launch(small_spec(steps=100_000, checkpoint_every=100_000), account="lab-a")
    for time_ in range(1, 7):
        wait_for(lambda count=time_: run.state == "failed" or states_of(run).count("running") == count)
        if run.state == "failed":
            break
        for worker in ("worker-2", "worker-3"):  # both of stage 1, at once
            run.kill(worker)
        wait_for(lambda count=time_: states_of(run).count("paused") == count)
    with pytest.raises(RunError, match=r"stage 1 had no live replica left, 6 times after round 0"):
        run.wait(timeout_s=60)
