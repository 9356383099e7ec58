"""A launched run whose subspace turns: as the simulation of it, with texts meanwhile, a kill, a stop, and what is told of it."""

from pathlib import Path

import pytest

import pluralis_lab as pl
from tests.engines.swarm.conftest import simulated_losses, small_spec

TURNS = [8, 16, 24, 32]


@pytest.mark.drawn("how replicas agree", keep=1)
def test_a_launched_run_turns_as_the_simulated_one_does_also_when_it_is_stopped_and_resumed(home: Path) -> None:
    spec = small_spec(boundary=pl.Subspace(8, refresh_every=8), replicas=1)
    run = pl.launch(spec, account="lab-a").wait(round=17, timeout_s=60)
    run.stop()
    run.resume().wait(timeout_s=90)
    assert run.metrics()["loss"].dropna().tolist() == pytest.approx(simulated_losses(run), abs=1e-4)
    validations = run.metrics().set_index("round")["validation_loss"].dropna()
    told = {event.round: event.body for event in run.events("refresh")}
    assert sorted(told) == TURNS
    for version, turn in enumerate(TURNS, 1):
        assert told[turn]["version"] == version
        assert told[turn]["loss_before"] == validations[turn]
        assert told[turn]["loss_after"] == validations[turn + 1]
    assert len(run.generate("def ", tokens=4).text) > 4
    assert run.evaluate().loss > 0
    assert run.audit().ok
    run.stop()


@pytest.mark.deep  # tests/engines/virtual/test_refresh.py shows it at many moments, and test_deaths a kill of a real worker
def test_a_killed_worker_comes_back_into_the_subspace_of_the_others(home: Path) -> None:
    run = pl.launch(small_spec(boundary=pl.Subspace(8, refresh_every=4)), account="lab-a").wait(round=6, timeout_s=60)
    run.kill("worker-3")
    for _ in range(3):
        run.evaluate(batches=1)
        run.generate("import ", tokens=3).text  # noqa: B018  (to its end)
    run.wait(timeout_s=90)  # an epoch whose replicas hold other weights, or another basis, would have ended the run
    assert len(run.events("refresh")) >= 8
    assert not run.events("error") or all("worker-3" in event.body["message"] for event in run.events("error"))
    run.stop()
