"""The live view of the terminal, drawn from a run directory while a writer appends to it."""

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from pluralis_lab.store import RunDirectory
from pluralis_lab.terminal import render, sparkline, watch
from pluralis_lab.views.fold import RunPicture


@pytest.fixture
def run(lab_home: Path) -> RunDirectory:
    spec = importlib.util.spec_from_file_location("cli_tests", Path(__file__).with_name("test_cli.py"))
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: RunDirectory = module.make_run(lab_home)
    return made


def _text(run: RunDirectory) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    console.print(render(RunPicture.of(run)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_picture_shows_loss_workers_and_owners(run: RunDirectory) -> None:
    text = _text(run)
    assert "round 4 of 4" in text
    assert "loss 2.000 nats █▆▃▁" in text
    assert "validation 2.250" in text
    assert "unigram 3.200" in text
    assert "200 tokens/s" in text
    assert text.count("lab-a") == 2


def test_a_worker_shows_its_work_norm_and_agreement(run: RunDirectory) -> None:
    writer = run.writer()
    body = {
        "tokens": 100,
        "work_flops": 3e9,
        "grad_norm": 1.25,
        "agreement": 0.5,
        "compute_s": 0.1,
        "bytes_out": 10,
        "bytes_in": 10,
        "links": {},
    }
    writer.append("worker.round", worker="worker-0", round=0, body=body)
    writer.append("worker.round", worker="worker-1", round=0, body={**body, "work_flops": 1e9, "agreement": None})
    writer.close()
    text = _text(run)
    assert "75.0 %" in text
    assert "25.0 %" in text
    assert "1.25" in text
    assert "0.50" in text


def test_watching_follows_what_is_written_meanwhile(run: RunDirectory) -> None:
    writer = run.writer()
    writer.append("run.state", body={"state": "running", "reason": "resumed"})
    pauses = []

    def write_the_end(seconds: float) -> None:
        pauses.append(seconds)
        state = {"state": "dead", "stage": 1, "replica": 0, "participant": "lab-a", "reason": "killed by signal 9"}
        writer.append("worker.state", worker="worker-1", round=3, body=state)
        writer.append("run.state", body={"state": "stopped", "reason": ""})

    console = Console(file=io.StringIO(), force_terminal=False, width=140)
    picture = watch(run, console, sleep=write_the_end)
    writer.close()
    assert isinstance(console.file, io.StringIO)
    assert "worker-1 dead: killed by signal 9\nrun stopped" in console.file.getvalue()
    assert (picture.state, len(pauses)) == ("stopped", 1)


def test_on_a_terminal_the_view_is_redrawn(run: RunDirectory) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    watch(run, console)
    assert isinstance(console.file, io.StringIO)
    assert "worker-0" in console.file.getvalue()
    assert "\x1b[?25h" in console.file.getvalue()  # the cursor is given back


def test_sparklines_keep_their_ends_and_their_width() -> None:
    assert sparkline([]) == ""
    assert sparkline([2.0, 2.0]) == "▁▁"
    long = sparkline([float(value) for value in range(1000)], width=20)
    assert len(long) == 20
    assert (long[0], long[-1]) == ("▁", "█")
