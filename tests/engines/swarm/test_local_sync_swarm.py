"""`SliceSync` with real processes: replicas train on their own, one is killed, the run is stopped and resumed."""

from fractions import Fraction
from pathlib import Path

import pytest

import pluralis_lab as pl
from tests.engines.swarm.conftest import PEOPLE, assert_all_gone, descendants_of, small_spec


@pytest.mark.drawn("how replicas agree", keep=1)
def test_replicas_that_train_on_their_own_survive_a_kill_and_a_stop(home: Path) -> None:
    spec = small_spec(schedule="async", sync=pl.SliceSync(fraction=0.25, every=4), steps=60, eval_every=30, checkpoint_every=6)
    run = pl.launch(spec, account="lab-a", participants=PEOPLE)
    run.wait(round=15, timeout_s=60)
    run.kill("worker-2")
    run.wait(round=28, timeout_s=60)
    run.stop()
    run.resume()
    family = descendants_of(run)
    run.wait(timeout_s=120)
    losses = run.metrics()["loss"].dropna()
    assert list(losses.index.unique()) == list(range(60))
    assert losses.iloc[-5:].mean() < losses.iloc[0] - 1.5
    assert set(run.workers()["state"]) == {"serving"}
    exchanges = run.events("exchange")
    assert {event.worker for event in exchanges} == {"worker-0", "worker-1", "worker-2", "worker-3"}
    assert {event.round for event in exchanges} == {*range(3, 60, 4), 59}
    shown = run._repr_mimebundle_()["text/plain"]
    assert "exchanges between replicas" in shown
    assert run.contributions()["agreement"].notna().all()
    report = run.audit()
    assert report.ok, str(report)
    closes = run._directory.evidence.closes()
    assert len(closes) == 6
    assert all(sum(Fraction(*share) for share in close["shares"].values()) == 1 for close in closes)
    assert all("contribution" in {kind for kind, *_ in close["listing"]} for close in closes)
    run.stop()
    assert_all_gone(family)
