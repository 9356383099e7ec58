"""A run of somebody's own model: nobody who joins it runs a line of that, or what it names, before they accept its hash."""

import json
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
from pluralis_lab.accepting import check_accepted, confirm_on_terminal
from pluralis_lab.engines.swarm.joiner import Gateway
from pluralis_lab.errors import RunError
from pluralis_lab.joining import join_here
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
    """Return the source text of the run's model and the hash to accept."""
    model = run.spec.model
    assert isinstance(model, pl.Blocks)
    assert model.source is not None
    return model.source, model.accept_hash


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
            assert process.wait(60) == 1
        finally:
            process.kill()
            os.close(ours)
    text = re.sub(r"\r+\n", "\n", shown.decode())
    assert source.strip() in text
    assert 'mixed of this text is called with {"width": 16}.' in text
    assert f"(hash {true})" in text
    assert "accept its hash" in text.partition("[y/N]")[2], "whoever says nothing has not accepted it"
    assert not has_run(tmp_path)
    assert len(run.info["workers"]) == run.spec.num_workers


class LyingFounder:
    """Has the run's gate describe another model than it trains, as a founder could who only wants something to run elsewhere."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: pl.Run, **model: object) -> None:
        fields = json.loads(run.spec.to_json())
        fields["model"] |= {"source": None, **model}
        self.spec = pl.RunSpec.from_json(json.dumps(fields))
        ask = Gateway.ask

        async def lie(gateway: Gateway, **message: object) -> dict[str, object]:
            answer = await ask(gateway, **message)
            if "facts" in answer:
                answer["facts"] |= {"spec": self.spec.to_json().decode(), "spec_hash": self.spec.hash}
            return answer

        monkeypatch.setattr(Gateway, "ask", lie)

    @property
    def accept_hash(self) -> str:
        assert isinstance(self.spec.model, pl.Blocks)
        return self.spec.model.accept_hash


@pytest.mark.timeout(120)
def test_a_function_that_is_only_named_must_be_accepted_too(run: pl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, told = tmp_path / "command-ran", []
    founder = LyingFounder(monkeypatch, run, factory="os:system", options={"command": f"touch {trace}"})

    def tell(line: str) -> None:
        told.append(line)
        assert len(told) < 10, "it goes on and on"

    with pytest.raises(RunError) as refused:
        join_here(run.invite(), stage=1, home=tmp_path / "home", tell=tell)
    assert not trace.exists(), "the founder has run a command here"
    assert not (tmp_path / "home" / "joined").exists(), "a seat was taken"
    for part in ("os:system", f'{{"command": "touch {trace}"}}', f"accept='{founder.accept_hash}'", "--accept"):
        assert part in str(refused.value)
    shown = []
    with pytest.raises(RunError):
        join_here(
            run.invite(),
            stage=1,
            home=tmp_path / "home",
            confirm=lambda code, code_hash: bool(shown.append((code, code_hash))),
            tell=tell,
        )
    ((code, code_hash),) = shown
    assert "os:system is imported" in code
    assert f"touch {trace}" in code
    assert code_hash == founder.accept_hash
    assert not trace.exists()


def test_not_even_the_module_of_a_function_is_imported_before_that(
    run: pl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "imported"
    (tmp_path / "leaves_a_trace.py").write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    founder = LyingFounder(monkeypatch, run, factory="leaves_a_trace:factory", options={})
    for accept in (None, "ab" * 32):
        with pytest.raises(RunError, match=founder.accept_hash):
            join_here(run.invite(), stage=1, accept=accept, home=tmp_path / "home", tell=lambda line: None)
    assert "leaves_a_trace" not in sys.modules
    assert not trace.exists()


def test_what_is_accepted_is_accepted_with_these_options_alone() -> None:
    fields = {"factory": "tests.models.own_blocks:mixed", "context": 8}
    text = pl.Blocks.from_source(mixed, context=8)
    models = [
        pl.Blocks(**fields),
        pl.Blocks(**fields, options={"width": 8}),
        pl.Blocks(**fields, options={"layers": 8}),
        pl.Blocks("tests.models.own_blocks:as_list", context=8),
        text,
        pl.Blocks(factory="mixed", context=8, source=text.source, options={"width": 8}),
        pl.Blocks(factory="mixed", context=8, source=f"{text.source}\n"),
    ]
    for model in models:
        for other in models:
            if other is model:
                check_accepted(model, other.accept_hash, None)
            else:
                with pytest.raises(RunError, match=model.accept_hash):
                    check_accepted(model, other.accept_hash, lambda *_: True)


def test_a_text_cannot_hide_lines_from_who_reads_it_at_a_terminal() -> None:
    text = pl.Blocks.from_source(mixed, context=8)
    model = pl.Blocks(factory="mixed", context=8, source=f"{text.source}\nhidden = 1  # \x1b[2K\x1b[1A\u202e\r# seen: é\n")
    shown = []
    check_accepted(model, None, lambda code, _: not shown.append(code))
    assert r"hidden = 1  # \x1b[2K\x1b[1A\u202e\r# seen: é" in shown[0]


def test_long_options_are_cut_in_an_error_and_whole_at_a_terminal() -> None:
    model = pl.Blocks("tests.models.own_blocks:mixed", context=8, options={"width": 8})
    long = model.model_copy(update={"options": {"width": "8" * 5000}})
    with pytest.raises(RunError, match=r"8… \(5,013 characters\); read it") as refused:
        check_accepted(long, None, lambda code, _: "8" * 5000 not in code)
    assert len(str(refused.value)) < 1500


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
