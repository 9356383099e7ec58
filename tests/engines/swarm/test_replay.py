"""What real processes went through is gone through once more in this process, to the same members, routes and counts."""

import json
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.cli import main
from pluralis_lab.errors import RunError
from tests.engines.swarm.conftest import small_spec, wait_for

ASYNC: dict[str, Any] = {"schedule": "async", "sync": pl.SliceSync(fraction=0.25, every=4), "boundary": pl.Dense()}


@pytest.mark.parametrize("fields", [pytest.param({}, id="sync"), pytest.param(ASYNC, id="async, slices", marks=pytest.mark.deep)])
def test_a_run_with_deaths_an_attached_worker_and_one_that_leaves(
    home: Path, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = pl.launch(small_spec(steps=70, epoch_rounds=20, **fields), account="lab-a", recorded=True)
    run.wait(round=8, timeout_s=60)
    run.kill("worker-3")
    run.attach(stage=0)
    run.wait(round=20, timeout_s=60)
    run.kill("worker-0")
    wait_for(lambda: run.workers().set_index("worker")["state"].get("worker-4") in ("active", "serving"))
    run.detach("worker-4")
    run.wait(timeout_s=120)
    run.evaluate()
    run.stop()
    replayed = run.replay()
    assert replayed.ok, replayed.differences[:5]
    assert replayed.num_rounds == 70
    assert replayed.largest_loss_difference == 0.0
    assert replayed.num_events > 70 * 4 * 10
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["replay", run.id[:12], "--json"])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["num_rounds"] == 70


def test_a_run_that_went_back_to_a_checkpoint(home: Path) -> None:
    run = pl.launch(small_spec(steps=30, replicas=1, epoch_rounds=15), account="lab-a", recorded=True)
    run.wait(round=13, timeout_s=60)
    run.kill("worker-1")
    run.wait(timeout_s=90)
    run.stop()
    replayed = run.replay()
    assert replayed.ok, replayed.differences[:5]
    assert (replayed.num_rounds, replayed.largest_loss_difference) == (30, 0.0)


def test_a_replay_computes_as_a_worker_does_whatever_this_process_is_set_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from pluralis_lab.engines.virtual.replay import ReplayedSwarm

    run = pl.launch(small_spec(steps=10, epoch_rounds=10), account="lab-a", recorded=True)
    run.wait(timeout_s=60)
    run.stop()
    threads = []
    main = ReplayedSwarm.main
    monkeypatch.setattr(ReplayedSwarm, "main", lambda swarm: (threads.append(torch.get_num_threads()), main(swarm))[1])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        replayed = run.replay()
        assert (threads, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)
    assert replayed.ok, replayed.differences[:5]
    assert replayed.largest_loss_difference == 0.0


def test_a_run_of_a_machine_with_other_devices_is_replayed_on_the_cpu(home: Path) -> None:
    run = pl.launch(small_spec(steps=10, epoch_rounds=10), account="lab-a", recorded=True)
    run.wait(timeout_s=60)
    run.stop()
    rows = [{**row, "device": "cuda:9"} for row in run.info["workers"]]
    run._directory.update_info(workers=rows)  # as on a machine with more of them than this one has
    replayed = run.replay()
    assert replayed.ok, replayed.differences[:5]
    assert replayed.num_rounds == 10
    assert replayed.instead_of == ("cuda:9",)
    assert "the CPU in place of cuda:9" in str(replayed)


def test_where_code_and_record_disagree_is_named(home: Path) -> None:
    run = pl.launch(small_spec(steps=10, epoch_rounds=10), account="lab-a", recorded=True)
    run.wait(timeout_s=60)
    run.stop()
    file = run.path / "workers" / "worker-2" / "events-0.jsonl"
    assert file.stat().st_mode & 0o077 == 0
    lines = file.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if json.loads(line).get("what", [""])[0] == "Activation")
    file.write_text("\n".join([*lines[:at], *lines[at + 1 :]]))
    replayed = run.replay()
    assert not replayed.ok
    assert "which does not come about here" in replayed.differences[0]
    assert any("reported round of round" in difference for difference in replayed.differences)
    rows = [{**row, "remote": True} if row["name"] == "worker-3" else row for row in run.info["workers"]]
    run._directory.update_info(workers=rows)  # as the gate writes down who came by invitation
    with pytest.raises(RunError, match="worker-3 came by invitation"):
        run.replay()


@pytest.mark.drawn("long replays", keep=1)
def test_a_run_of_which_a_head_drew_from_its_own_text(home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("the quick brown fox jumps over the lazy dog. " * 4000)
    run = pl.launch(small_spec(steps=3000, own_data=1.0), account="lab-a", recorded=True)
    run.wait(round=3, timeout_s=60)
    name = run.attach(data=f"path:{mine}").name
    wait_for(lambda: not (run.data().empty or (run.data()["tokens"] < 2000).any()))
    run.kill(name)  # a micro-batch that another head draws again is handed back as its ids: `Drawn`
    run.wait(round=len(run.metrics()) + 20, timeout_s=60)
    run.stop()
    replayed = run.replay()
    assert replayed.ok, replayed.differences[:5]
    assert replayed.num_rounds > 20
    assert replayed.largest_loss_difference == 0.0
    mine.write_text("quite another text. " * 8000)
    with pytest.raises(pl.PluralisError, match=r"mine\.txt"):
        run.replay()


@pytest.mark.drawn("long replays", keep=1)
def test_a_run_that_was_stopped_and_resumed_is_recorded_and_replayed_from_its_first_round(home: Path) -> None:
    run = pl.launch(small_spec(steps=50), account="lab-a", recorded=True)
    run.wait(round=8, timeout_s=60)
    run.kill("worker-3")
    run.wait(round=24, timeout_s=60)
    run.stop()
    before = {path: path.read_bytes() for path in sorted(run.path.glob("workers/*/events-*.jsonl"))}
    assert len(before) == 5
    run.resume()
    run.wait(timeout_s=120)
    run.stop()
    assert all(path.read_bytes() == lines for path, lines in before.items()), "the record of the first start was overwritten"
    assert len(list(run.path.glob("workers/*/events-*.jsonl"))) == 9
    replayed = run.replay()
    assert replayed.ok, replayed.differences[:5]
    assert (replayed.num_rounds, replayed.largest_loss_difference) == (50, 0.0)
