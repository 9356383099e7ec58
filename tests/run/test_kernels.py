"""Runs and the kernels they are started from: interrupts, restarts, kills, and what lands in the cells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.errors import RunError
from tests.engines.swarm.conftest import assert_all_gone, descendants_of
from tests.run.conftest import SETUP, Kernel, Outputs

StartKernel = Callable[..., Kernel]
IN_FRONT = {"cellId": "some-cell"}  # what JupyterLab sends along with a cell, and papermill does not


def rounds_done(run: pl.Run) -> int:
    last = run.events("round")
    return 0 if not last else int(last[-1].round) + 1  # type: ignore[arg-type]


def goes_on(run: pl.Run) -> bool:
    run.wait(round=rounds_done(run) + 3, timeout_s=30)
    return run.state == "running"


@pytest.mark.timeout(180)
def test_a_run_outlives_interrupt_restart_and_death_of_its_kernel(home: Path, kernel: StartKernel) -> None:
    first = kernel()
    launched = first.run(
        SETUP + 'run = pl.launch(small_spec(steps=100_000), account="lab-a", participants=["lab-a", "lab-b"])\n'
        "run.wait(round=2, timeout_s=60)\nprint(run.id)",
        **IN_FRONT,
    )
    run = pl.open_run(launched.stdout.split()[-1])
    assert run.info["lifetime"] == "detached", "somebody is in front of this notebook"
    processes = descendants_of(run)

    waiting = first.submit("run.wait()", **IN_FRONT)
    first.collect(waiting, until=lambda seen: bool(seen.displays))
    first.manager.interrupt_kernel()
    interrupted = first.collect(waiting, timeout_s=10)
    assert interrupted.error is not None
    assert (interrupted.error[0], interrupted.stderr) == ("KeyboardInterrupt", "")
    assert goes_on(run)

    first.restart()
    assert goes_on(run)
    second = kernel()
    picked_up = second.run(
        f"import pluralis_lab as pl\nrun = pl.open_run({run.id[:10]!r})\nrun.wait(round={rounds_done(run) + 3})\n"
        "display(run, pl.runs())\nrun.contributions()",
        **IN_FRONT,
    )
    progress, shown, listed, table = picked_up.displays
    assert "rounds done" in progress["text/html"]
    assert run.id[:8] in shown["text/html"]
    assert run.id[:8] in listed["text/html"]
    assert all(f"worker-{number}" in table["text/plain"] for number in range(4))

    first.process.kill()
    assert goes_on(run)
    second.run("run.stop()", **IN_FRONT)
    assert_all_gone(processes)
    assert run.state == "stopped"
    assert [event for event in run.events("worker.state") if event.body["state"] == "dead"] == []


def test_a_run_of_lifetime_kernel_ends_with_a_killed_kernel_and_survives_an_interrupt(home: Path, kernel: StartKernel) -> None:
    starter = kernel()
    code = SETUP + 'run = pl.launch(small_spec(steps=100_000, replicas=1), account="lab-a")\nprint(run.id)\n'
    launched = starter.run(code)
    run = pl.open_run(launched.stdout.split()[-1])
    assert run.info["lifetime"] == "kernel", "no front end named the cell: this is a script"
    waiting = starter.submit("print('waits', flush=True)\nrun.wait()")
    starter.collect(waiting, until=lambda seen: "waits" in seen.stdout)  # an interrupt before that goes to no cell
    run.wait(round=2, timeout_s=60)
    starter.manager.interrupt_kernel()
    assert starter.collect(waiting, timeout_s=60).error is not None
    assert goes_on(run)
    processes = descendants_of(run)
    starter.process.kill()
    assert_all_gone(processes)
    assert (run.state, run.info["reason"]) == ("stopped", "its kernel ended")

    run.resume(lifetime="detached")
    assert run.info["lifetime"] == "detached"
    with pytest.raises(RunError, match=r"end it with run\.stop\(\), then delete it"):
        run.delete()
    run.stop().delete()
    assert not run.path.exists()


def test_a_childs_exception_is_raised_in_the_cell_that_waits(home: Path, kernel: StartKernel) -> None:
    starter = kernel(PLURALIS_LAB_HEADLESS="0")
    damage_a_key = """
from pluralis_lab.engines import processes
start = processes.start_supervisor
def start_with_a_damaged_key(run, **arguments):
    (run.path / "workers" / "worker-1" / "hot.key").write_text("no key")
    start(run, **arguments)
processes.start_supervisor = start_with_a_damaged_key
"""
    starter.run(SETUP + damage_a_key)
    cell = 'run = pl.launch(small_spec(replicas=1), account="lab-a")\nrun.wait(timeout_s=60)'
    failed = starter.collect(starter.submit(cell))
    assert failed.error is not None
    name, message = failed.error
    assert name == "RunError"
    assert "worker-1 failed" in message
    assert "end of the log of worker-1" in message
    assert "hot.key" in message
    assert failed.stderr == ""


@pytest.fixture(scope="module")
def finished(home: Path) -> pl.Run:
    """A simulated run, complete."""
    from tests.engines.swarm.conftest import small_spec

    return pl.simulate(small_spec(steps=4, epoch_rounds=2, eval_every=2, checkpoint_every=2)).wait(timeout_s=60)


def test_watch_and_wait_store_one_bundle(finished: pl.Run, kernel: StartKernel) -> None:
    ours = {"application/vnd.pluralis.run+json", "image/png", "text/html", "text/plain"}
    front = kernel(PLURALIS_LAB_HEADLESS="0")
    front.run(f"import pluralis_lab as pl\nrun = pl.open_run({finished.id[:8]!r})")
    (watched,) = front.run("run.watch()").displays
    assert set(watched) == ours | {"application/vnd.jupyter.widget-view+json"}
    assert finished.id in str(watched["application/vnd.pluralis.run+json"])
    *_, waited = front.run("run.wait();").displays
    assert set(waited) == ours
    front.run("import os; os.environ['PLURALIS_LAB_HEADLESS'] = '1'")
    (watched,) = front.run("run.watch()").displays
    assert set(watched) == ours
    headless = front.run("run.wait();")
    assert [set(display) for display in headless.displays] == [ours]
    assert headless.stdout.startswith("finished · loss ")


def test_papermill_is_not_interactive_and_a_front_end_is(
    home: Path, kernel: StartKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    import papermill

    for variable in ("CI", "PLURALIS_LAB_HEADLESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook: Any = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    ask = "from pluralis_lab.session import is_interactive\nprint(is_interactive())"
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in ("import os", ask)]  # type: ignore[no-untyped-call]
    nbformat.write(notebook, tmp_path / "in.ipynb")  # type: ignore[no-untyped-call]
    papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), kernel_name="python3", language="python", progress_bar=False
    )
    executed: Any = nbformat.read(tmp_path / "out.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert [output["text"] for output in executed.cells[1].outputs] == ["False\n"]
    front = kernel()
    assert front.run(ask, **IN_FRONT).stdout == "True\n"
    assert front.run(ask).stdout == "False\n"


@pytest.mark.timeout(180)
def test_a_text_streams_into_its_cell(home: Path, kernel: StartKernel) -> None:
    front = kernel(PLURALIS_LAB_HEADLESS="0")
    spec = "small_spec(steps=4, eval_every=0, replicas=1, checkpoint_every=4)"
    launch = f'run = pl.launch({spec}, account="lab-a", lifetime="kernel").wait(timeout_s=60)'
    front.run(SETUP + launch, **IN_FRONT)
    pieces: list[str] = []

    def note(seen: Outputs) -> bool:
        """Called after each message to the front end: each that brings text is a piece of its own."""
        if (new := seen.stdout[len("".join(pieces)) :]) != "":
            pieces.append(new)
        return False

    cell = front.submit("run.generate('def main(', 300, temperature=0)", **IN_FRONT)
    shown = front.collect(cell, until=note)
    assert shown.error is None
    assert (shown.finished, shown.stderr, shown.displays) == (True, "", [])
    assert shown.stdout.startswith("def main(")
    assert len(shown.stdout) > 150  # of bytes that are no text, a few make one character
    # The kernel sends on what was written five times a second; each token goes through two processes.
    assert len(pieces) >= 2
    assert max(map(len, pieces)) < 0.8 * len(shown.stdout), "nearly all of it came at once, when it was written"
    front.run("run.stop()", **IN_FRONT)
