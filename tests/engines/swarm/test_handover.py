"""A run's process starts before there is a run: it takes one over its standard input, or ends without having left anything."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.engines import processes
from pluralis_lab.engines.handover import RunProcess
from pluralis_lab.errors import CorpusError, RunError
from tests.engines.swarm.conftest import assert_all_gone, small_spec, wait_for

SUPERVISOR = "pluralis_lab.engines.swarm.supervisor_process"


def test_a_process_whose_starter_is_gone_before_there_is_a_run_ends_with_all_it_began(tmp_path: Path) -> None:
    process = RunProcess.start(SUPERVISOR, tmp_path)
    with process.early:
        child = psutil.Process(process.child.pid)
        wait_for(lambda: bool(child.children()))
        fork_server = child.children()
        process.let_go()
        assert process.child.wait(60) == 0
        assert_all_gone(fork_server)


def test_what_is_refused_after_the_early_start_leaves_no_process(tmp_path: Path) -> None:
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    with pytest.raises(CorpusError, match=r"no-such\.txt"):
        pl.launch(small_spec(data="path:no-such.txt"), home=tmp_path)
    assert {child.pid for child in me.children(recursive=True)} <= before
    assert pl.runs(home=tmp_path).empty


@pytest.mark.parametrize("words", ["no run", '{"run": 1}', "[]"])
def test_garbage_instead_of_a_run_is_named(words: str) -> None:
    done = subprocess.run([sys.executable, "-m", SUPERVISOR], input=words + "\n", capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "which is no run; start runs with pl.launch" in done.stderr


def test_what_a_process_said_before_it_had_its_run_is_in_the_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_SUPERVISOR", "pluralis_lab.no_such_module")
    with pytest.raises(RunError, match="No module named"):
        pl.launch(small_spec(), account="lab-a")
