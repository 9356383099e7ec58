"""Real processes that add up a part of the gradient for each other: the same losses through a death, and from the log again."""

from pathlib import Path

import pytest

import pluralis_lab as pl
from tests.engines.swarm.conftest import PEOPLE, simulated_losses, small_spec, wait_for


@pytest.mark.drawn("how replicas agree", keep=1)
def test_three_replicas_one_of_which_is_killed_train_as_the_simulation_does(home: Path, one_thread: None) -> None:
    sync = pl.FullSync(transport="butterfly")
    spec = small_spec(stages=1, replicas=3, boundary=pl.Dense(), sync=sync, steps=60, micro_batches=4, epoch_rounds=15)
    run = pl.launch(spec, account="lab-a", participants=PEOPLE, recorded=True)
    run.wait(round=10, timeout_s=60)
    run.kill("worker-1")
    run.wait(timeout_s=120)
    wait_for(lambda: run.workers().set_index("worker").loc["worker-1", "state"] == "serving")  # perhaps after the last round
    back = run.workers().set_index("worker").loc["worker-1"]
    assert (back["incarnation"], back["deaths"]) == (1, 1)
    assert not [event for event in run.events("error") if "expelled" in str(event.body)]
    losses = run.metrics()["loss"].dropna().tolist()
    report = run.audit()
    assert report.ok, str(report)
    run.stop()
    assert losses == pytest.approx(simulated_losses(run, sync=pl.FullSync()), rel=1e-3)
    replayed = run.replay()
    assert replayed.ok, replayed.differences[:5]
    assert (replayed.num_rounds, replayed.largest_loss_difference) == (60, 0.0)
