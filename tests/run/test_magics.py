"""`%pluralis` in a real IPython shell and in a real kernel."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import pluralis_lab as pl
from pluralis_lab.store import RunDirectory
from tests.cli.test_cli import make_run
from tests.run.conftest import Kernel


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A shell with the extension loaded, as `%load_ext` does it."""
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "pluralis_lab")
    yield shell
    shell.run_line_magic("unload_ext", "pluralis_lab")
    assert shell.find_line_magic("pluralis") is None
    InteractiveShell.clear_instance()


@pytest.fixture
def run(lab_home: Path) -> RunDirectory:
    return make_run(lab_home)


def executed(shell: InteractiveShell, code: str) -> tuple[Any, str, str]:
    """Run a cell; returns its result, what it printed, and what it complained of."""
    with capture_output() as captured:
        result = shell.run_cell(code).result
    return result, captured.stdout, captured.stderr


def test_runs_are_listed_and_opened(shell: InteractiveShell, run: RunDirectory) -> None:
    listed, _, _ = executed(shell, "%pluralis runs")
    assert list(listed.index) == [run.id[:8]]
    opened, _, _ = executed(shell, f"%pluralis open {run.id[:6]}")
    assert opened.id == run.id
    newest, _, _ = executed(shell, "kept = %pluralis open\nkept")
    assert newest.id == run.id


def test_tables_and_figures_are_returned(shell: InteractiveShell, run: RunDirectory) -> None:
    assert len(executed(shell, "%pluralis metrics")[0]) == 5
    assert len(executed(shell, f"%pluralis workers {run.id[:8]}")[0]) == 2
    assert executed(shell, f"%pluralis figure {run.id[:8]} loss")[0].data
    assert executed(shell, "%pluralis figure loss")[0].data, "the newest run's"


def test_watch_prints_the_record_outside_a_kernel(shell: InteractiveShell, run: RunDirectory) -> None:
    _, printed, _ = executed(shell, "%pluralis watch")
    assert f"pluralis_lab run {run.id[:8]}" in printed


def test_help_names_every_command(shell: InteractiveShell, lab_home: Path) -> None:
    from pluralis_lab.magics import COMMANDS

    for code in ("%pluralis", "%pluralis help"):
        _, printed, _ = executed(shell, code)
        assert all(command.usage(name) in printed and command.about in printed for name, command in COMMANDS.items())
    assert "%pluralis help" in (shell.find_line_magic("pluralis").__doc__ or "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frobnicate", "no such command; there are runs, open, watch"),
        ("watch zzz", "RunError: run id 'zzz' is not hexadecimal"),
        ("stop 0123", "RunError: no run '0123'"),
        ("runs all", "write %pluralis runs"),
        ("figure 12 34 56", "write %pluralis figure [ID] NAME"),
        ("figure los", "RunError: figure('los'): no such figure; use one of 'loss'"),
        ('open "', "close the quotes"),
    ],
)
def test_an_error_is_one_line_without_a_traceback(shell: InteractiveShell, run: RunDirectory, line: str, message: str) -> None:
    with capture_output() as captured:
        result = shell.run_cell(f"%pluralis {line}")
    assert not result.success
    shown = captured.stdout + captured.stderr
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1


def test_without_a_run_it_says_how_to_start_one(shell: InteractiveShell, lab_home: Path) -> None:
    _, printed, complained = executed(shell, "%pluralis watch")
    assert "there are no runs yet; start one with pl.launch(spec)" in printed + complained


def test_commands_ids_and_names_are_completed(shell: InteractiveShell, run: RunDirectory) -> None:
    def offered(text: str) -> list[str]:
        return [one.text for one in shell.Completer.completions(text, len(text))]

    with provisionalcompleter():
        _check(offered, run)


def _check(offered: Callable[[str], list[str]], run: RunDirectory) -> None:
    assert "watch" in offered("%pluralis wa")
    assert run.id[:8] in offered(f"%pluralis stop {run.id[:3]}")
    assert "ownership" in offered(f"%pluralis figure {run.id[:8]} own")


@pytest.mark.timeout(120)
def test_in_a_kernel(home: Path, kernel: Callable[..., Kernel]) -> None:
    made = make_run(home)
    cells = kernel(PLURALIS_LAB_HEADLESS="0")
    cells.run("%load_ext pluralis_lab")
    listed = cells.run("%pluralis runs")
    assert made.id[:8] in listed.displays[0]["text/html"]
    watched = cells.run(f"%pluralis watch {made.id[:8]}")
    assert {"application/vnd.pluralis.run+json", "application/vnd.jupyter.widget-view+json", "image/png"} <= set(
        watched.displays[0]
    )
    shown = cells.run("%pluralis open")
    assert shown.displays[0]["application/vnd.pluralis.run+json"]["run"] == made.id
    assert "pluralis_lab run" in shown.displays[0]["text/plain"]
    waited = cells.run(f"import pluralis_lab as pl\nrun = pl.open_run('{made.id}')\nrun.wait()")
    assert "application/vnd.pluralis.run+json" in waited.displays[-2], "the record"
    assert waited.displays[-1] == {"text/plain": f"<Run {made.id[:8]} stopped>"}, "not the same again below it"
    assert "image/png" in cells.run("run").displays[0]
    completed = cells.client.complete(f"%pluralis watch {made.id[:4]}", reply=True, timeout=30)["content"]
    assert made.id[:8] in completed["matches"]
    failed = cells.collect(cells.submit("%pluralis watch 0123"))
    assert failed.error is None, "no traceback is sent"
    assert "RunError: no run '0123'" in failed.stderr + failed.stdout
    checked = cells.run("%pluralis doctor", timeout_s=90)
    assert "✓ torch" in checked.stdout
    assert "Traceback" not in checked.stdout


def test_importing_the_package_does_not_import_ipython() -> None:
    import subprocess
    import sys

    code = "import sys, pluralis_lab; assert 'IPython' not in sys.modules; assert pluralis_lab.load_ipython_extension"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(pl.unload_ipython_extension)
