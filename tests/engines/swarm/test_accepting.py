"""A run that brings its model's source: nobody who joins it runs a line of that before they have accepted its hash."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import pluralis_lab as pl
from pluralis_lab.errors import RunError
from pluralis_lab.joining import confirm_on_terminal, join_here
from tests.engines.swarm.conftest import small_spec, wait_for
from tests.models.own_blocks import mixed

TRACE = 'import os, pathlib\npathlib.Path(os.environ["PLURALIS_LAB_HOME"], "source-ran").touch()\n'
"""In front of a model's source: whoever runs the source leaves a file in their home."""


def has_run(home: Path) -> bool:
    return (home / "source-ran").exists()


@pytest.fixture(scope="module")
def run(home: Path) -> Iterator[pl.Run]:
    """A run of a notebook's model that has begun to train."""
    written = pl.Blocks.from_source(mixed, context=32, options={"width": 16})
    assert written.source is not None
    model = pl.Blocks(factory=written.factory, context=32, options={"width": 16}, source=TRACE + written.source)
    run = pl.launch(small_spec(model=model, boundary=pl.Dense(), replicas=1, steps=100_000, eval_every=0, epoch_rounds=50))
    try:
        run.wait(round=1, timeout_s=60)
        assert has_run(home), "the run's own workers train it"
        yield run
    finally:
        run.stop()


def source_of(run: pl.Run) -> tuple[str, str]:
    """Return the source text of the run's model and its hash."""
    model = run.spec.model
    assert isinstance(model, pl.Blocks)
    assert model.source is not None
    assert model.source_hash is not None
    return model.source, model.source_hash


def test_without_a_word_or_with_another_hash_nobody_joins_and_nothing_runs(run: pl.Run, tmp_path: Path) -> None:
    _, true = source_of(run)
    invitation = run.invite()
    with pytest.raises(RunError) as refused:  # its standard input is no terminal
        pl.join(invitation, stage=1, home=tmp_path)
    assert f"accept='{true}'" in str(refused.value)
    assert "--accept" in str(refused.value)
    wrong = "ab" * 32
    with pytest.raises(RunError) as refused:
        join_here(invitation, stage=1, accept=wrong, confirm=lambda *_: True, home=tmp_path, tell=lambda line: None)
    assert true in str(refused.value)
    assert wrong in str(refused.value)
    assert not has_run(tmp_path)
    assert not (tmp_path / "joined").exists(), "a seat was taken"
    assert len(run.info["workers"]) == run.spec.num_workers


def test_who_sits_at_a_terminal_reads_the_source_and_is_asked(run: pl.Run, tmp_path: Path) -> None:
    source, true = source_of(run)
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "pluralis_lab.cli", "join", str(run.invite()), "--stage", "1"],
        env={**os.environ, "PLURALIS_LAB_HOME": str(tmp_path), "NO_COLOR": "1", "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        try:
            os.close(theirs)
            while b"[y/N]" not in shown:
                shown += os.read(ours, 65536)
            os.write(ours, b"\n")
            with suppress(OSError):  # nobody has the terminal any more
                while True:
                    shown += os.read(ours, 65536)
            assert process.wait(20) == 1
        finally:
            process.kill()
            os.close(ours)
    text = re.sub(r"\r+\n", "\n", shown.decode())
    assert source.strip() in text
    assert f"(sha256 {true})" in text
    assert "accept its hash" in text.partition("[y/N]")[2], "whoever says nothing has not accepted it"
    assert not has_run(tmp_path)
    assert len(run.info["workers"]) == run.spec.num_workers


@pytest.mark.parametrize(("answer", "may_run"), [("", False), ("n", False), ("yess", False), ("y", True), ("Yes", True)])
def test_only_a_yes_at_the_terminal_is_one(monkeypatch: pytest.MonkeyPatch, answer: str, may_run: bool) -> None:
    ours, theirs = pty.openpty()
    with open(theirs) as stdin, open(os.dup(theirs), "w") as stderr:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", stderr)
        os.write(ours, answer.encode() + b"\n")
        assert confirm_on_terminal("source", "ab" * 32) is may_run
    os.close(ours)


def test_who_accepts_its_hash_takes_part_and_counts(run: pl.Run, elsewhere: Path) -> None:
    _, true = source_of(run)
    assert not has_run(elsewhere)
    joined = pl.join(run.invite(), stage=1, accept=true, home=elsewhere)
    assert has_run(elsewhere), "its worker was made of something else"
    (name,) = (row["name"] for row in run.info["workers"] if row.get("remote"))
    # What it was counted for while it warmed comes to the run's record before it is active.
    wait_for(lambda: any(event.worker == name and event.body["tokens"] for event in run.events("worker.round")))
    wait_for(lambda: run.workers().set_index("worker")["state"].get(name) == "active")
    assert run.workers().set_index("worker")["stage"][name] == 1
    assert joined.is_running
    assert not joined.leave().is_running
