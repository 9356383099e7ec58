"""A run goes on from where its record is whole, also when its workers had saved later checkpoints."""

import json
import sqlite3
from pathlib import Path

import pytest

import pluralis_lab as pl
from pluralis_lab.engines.resuming import recorded_rounds, resume_version
from tests.engines.swarm.conftest import small_spec


@pytest.fixture
def run(home: Path) -> pl.Run:
    """A simulated run that has ended: it has checkpoints after 4, 8 and 12 rounds, and its epochs have four rounds."""
    spec = small_spec(steps=12, epoch_rounds=4, eval_every=0, checkpoint_every=4)
    run = pl.simulate(spec).wait(timeout_s=60).stop()
    assert recorded_rounds(run._directory) == 12
    assert resume_version(run._directory) == 12
    return run


def lose_reports(run: pl.Run, after: int) -> None:
    """Forget every event after `after`, and the receipts and the epochs of later rounds: their writer was killed before."""
    with sqlite3.connect(run.path / "events.db") as db:
        db.execute("DELETE FROM events WHERE seq > ?", (after,))
        rounds = [row[0] for row in db.execute("SELECT round FROM events WHERE kind = 'worker.round' ORDER BY seq")]
        num_epochs = db.execute("SELECT count(*) FROM events WHERE kind = 'epoch'").fetchone()[0]
    db.close()
    for file in (run.path / "evidence").glob("epoch-*.jsonl"):
        lines = [line for line in file.read_text().splitlines() if json.loads(line)["body"]["round"] <= rounds[-1]]
        file.write_text("".join(f"{line}\n" for line in lines))
    closes = run.path / "evidence" / "closes.jsonl"
    closes.write_text("".join(f"{line}\n" for line in closes.read_text().splitlines()[:num_epochs]))
    run._directory.update_info(state="failed", reason="killed by the test")


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("kind", ["worker.round", "round"])
def test_a_checkpoint_that_the_record_has_not_reached_is_passed_over(run: pl.Run, kind: str) -> None:
    losses = run.metrics()["loss"].dropna().tolist()
    # The first report of a round is there and the others are lost: of round 11, and so of the third epoch.
    cut = next(event.seq for event in run.events(kind) if event.round == 11)
    lose_reports(run, cut if kind == "worker.round" else cut - 1)
    assert recorded_rounds(run._directory) == 11
    assert resume_version(run._directory) == 8
    run.resume().wait(timeout_s=60)
    assert run.info["started_from"] == 8
    assert run.metrics()["loss"].dropna().tolist() == losses
    assert [close["epoch"] for close in run._directory.evidence.closes()] == [0, 1, 2]
    report = run.audit()
    assert report.ok, str(report)
    assert resume_version(run._directory) == 12


def test_a_record_that_has_reached_no_checkpoint_begins_again(run: pl.Run) -> None:
    losses = run.metrics()["loss"].dropna().tolist()
    lose_reports(run, next(event.seq for event in run.events("worker.round") if event.round == 2))
    assert resume_version(run._directory) == 0
    run.resume().wait(timeout_s=60)
    assert run.metrics()["loss"].dropna().tolist() == losses
    assert [close["epoch"] for close in run._directory.evidence.closes()] == [0, 1, 2]
    report = run.audit()
    assert report.ok, str(report)
