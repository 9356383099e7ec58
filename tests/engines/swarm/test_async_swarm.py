"""`schedule="async"` with real processes: it learns, a worker is killed on the way, and the evidence holds."""

from fractions import Fraction
from pathlib import Path

import pytest

import pluralis_lab as pl
from tests.engines.swarm.conftest import PEOPLE, assert_all_gone, descendants_of, small_spec, wait_for


@pytest.mark.drawn("how replicas agree", keep=1)
def test_an_asynchronous_run_survives_a_kill_and_its_evidence_holds(home: Path) -> None:
    run = pl.launch(
        small_spec(schedule="async", optimizer=pl.NAdam(lr=4e-3), steps=100, eval_every=50), account="lab-a", participants=PEOPLE
    )
    family = descendants_of(run)
    run.wait(round=20, timeout_s=60)
    run.kill("worker-2")
    run.wait(timeout_s=120)
    wait_for(lambda: set(run.workers()["state"]) == {"serving"})  # perhaps after the last round
    losses, workers = run.metrics()["loss"].dropna(), run.workers().set_index("worker")
    assert list(losses.index) == list(range(100))
    assert losses.iloc[-5:].mean() < losses.iloc[0] - 1.5
    assert workers["deaths"].sum() == workers["deaths"]["worker-2"] == 1
    assert workers["delay"]["worker-0"] > 0
    assert workers["delay"].between(0, run.spec.window).all()
    report = run.audit()
    assert report.ok, str(report)
    closes = run._directory.evidence.closes()
    assert len(closes) == 10
    assert all(sum(Fraction(*share) for share in close["shares"].values()) == 1 for close in closes)
    assert "gradients late by stage" in run._repr_mimebundle_()["text/plain"]
    run.stop()
    assert_all_gone(family)
