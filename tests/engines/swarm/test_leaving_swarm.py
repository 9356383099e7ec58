"""Workers are asked to leave a live run: they go in order, are paid, and stay away."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

import pluralis_lab as pl
from pluralis_lab.cli import main
from pluralis_lab.errors import RunError
from tests.engines.swarm.conftest import assert_all_gone, descendants_of, small_spec, wait_for
from tests.engines.swarm.test_attaching import counted


def has_left(run: pl.Run, worker: str) -> bool:
    return next(row for row in run.info["workers"] if row["name"] == worker).get("left", False)


@pytest.mark.drawn("who comes and goes", keep=1)
def test_a_worker_leaves_without_anything_being_computed_twice_and_does_not_come_back(home: Path) -> None:
    run = pl.launch(small_spec(steps=120, epoch_rounds=20), account="lab-a", participants=["lab-a", "lab-b"])
    run.wait(round=10, timeout_s=60)
    run.detach("worker-3")
    with suppress(SystemExit):
        main(["detach", run.id[:12], "worker-0"])
    wait_for(lambda: has_left(run, "worker-0") and has_left(run, "worker-3"))
    with pytest.raises(RunError, match="no worker 'worker-3'; there are worker-1, worker-2"):
        run.detach("worker-3")
    with pytest.raises(RunError, match="worker-1 is the only one that has stage 0; attach another there first"):
        run.detach("worker-1")
    assert run.attach(stage=0).name == "worker-4"
    run.wait(timeout_s=120)
    try:
        states = run.workers().set_index("worker")["state"].to_dict()
        assert states == {
            "worker-0": "stopped",
            "worker-3": "stopped",
            "worker-1": "serving",
            "worker-2": "serving",
            "worker-4": "serving",
        }
        reasons = {event.body["reason"] for event in run.events("worker.state") if event.body["state"] in ("stopped", "dead")}
        assert reasons == {"left the run"}
        assert not run.events("reroute")
        assert not run.events("error")
        tokens = run.spec.num_micro_batches * run.spec.tokens_per_micro_batch
        assert counted(run) == {(stage, round_): tokens for stage in (0, 1) for round_ in range(120)}
        report = run.audit()
        assert report.ok, str(report)
        shares = report.ownership.query("epoch == 0").set_index("participant")["percent"]
        assert shares["lab-b"] > 0
        run.stop()
        run.resume()
        assert run.info["started_from"] == 120
        wait_for(lambda: run.state == "serving")
        assert Counter(run.workers()["state"]) == {"serving": 3, "stopped": 2}
    finally:
        run.stop()


def test_one_that_dies_before_it_can_go_stays_away_and_a_run_ends_in_order_meanwhile(home: Path) -> None:
    run = pl.launch(small_spec(steps=100_000), account="lab-a")
    run.wait(round=3, timeout_s=60)
    run.detach("worker-1")
    with suppress(RunError):  # it may have gone by then
        run.kill("worker-1")
    wait_for(lambda: has_left(run, "worker-1"))
    done = run._directory.last("round").round
    run.wait(round=done + 5, timeout_s=60)
    run.detach("worker-2")
    family = descendants_of(run)
    run.stop()
    assert run.state == "stopped"
    assert_all_gone(family)
