"""The whole loop from the command line, with real workers and the real embedded chain: launch to claim."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def _cli(*arguments: str) -> str:
    """Run the command line, expect success, return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pluralis_lab.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_a_run_is_launched_watched_audited_tokenized_paid_claimed_and_stopped(lab_home: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    model = {"kind": "gpt", "n_layer": 2, "n_head": 2, "d_model": 16, "context": 16}
    spec.write_text(json.dumps({"data": "stdlib", "model": model, "batch_size": 4, "micro_batches": 2, "eval_every": 2}))

    printed = _cli(
        "launch", str(spec), "--stages", "2", "--steps", "4", "--epoch-rounds", "2", "--rank", "4", "--account", "lab-a"
    )
    launched = re.match(r"run ([0-9a-f]{64})\nwatch it:  pluralis-lab watch ([0-9a-f]{8})\n", printed)
    assert launched is not None
    run, short = launched.groups()

    story = _cli("watch", short)
    assert "worker-0 active" in story
    assert "validation loss" in story
    assert "its workers serve until" in story
    (row,) = json.loads(_cli("runs", "--json"))
    assert (row["id"], row["state"], row["rounds"], row["steps"]) == (run, "serving", 4, 4)

    assert "everything holds" in _cli("audit", short)
    assert json.loads(_cli("audit", short, "--json")) == {"run": run, "ok": True, "findings": []}

    done = subprocess.run(
        [sys.executable, "-m", "pluralis_lab.cli", "pay", short, "--ether", "1"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.startswith("ChainError: ")) == (1, True), "it has no token yet"
    assert re.search(r"token 0x[0-9a-fA-F]{40}  ledger 0x[0-9a-fA-F]{40}\n(.*\n)*.*lab-a", _cli("tokenize", short))
    assert "paid 0.5 ether" in _cli("pay", short, "--ether", "0.5")
    assert "lab-a" in _cli("claim", short)

    assert f"stopped {short}" in _cli("stop", short)
    (row,) = json.loads(_cli("runs", "--json"))
    assert row["state"] == "stopped"

    assert f"resumed {short}" in _cli("resume", short)
    assert "its workers serve until" in _cli("watch", short), "a resumed run outlives the command that resumed it"
    _cli("stop", short)


@pytest.mark.timeout(200)
def test_a_simulation_runs_to_its_end(lab_home: Path) -> None:
    model = 'model={"kind":"gpt","n_layer":2,"n_head":2,"d_model":16,"context":16}'
    options = ["--stages", "2", "--steps", "3", "--epoch-rounds", "3", "--rank", "4", "--batch-size", "4", "--micro-batches", "2"]
    printed = _cli("simulate", *options, "--set", model)
    assert re.search(r"run [0-9a-f]{64}", printed)
    assert re.search(r"after 3 of 3 rounds, loss \d\.\d+ nats", printed)
    (row,) = json.loads(_cli("runs", "--json"))
    assert (row["engine"], row["rounds"]) == ("virtual", 3)
