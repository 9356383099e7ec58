"""What stands around the runs: launcher, settings, status bar, running sessions, disk use, keys, dragging, a shared hub."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from pluralis_lab.store import RunDirectory
from tests.browser.labpage import LabPage
from tests.browser.labserver import LabServer
from tests.views.made_up_run import event_rows, make_run, write_rows

pytestmark = [pytest.mark.system("chromium"), pytest.mark.timeout(120)]

PANEL = "#pluralis-lab-panel"


@pytest.fixture
def two(server: LabServer) -> Iterator[tuple[RunDirectory, RunDirectory]]:
    """A run that is going on, as far as its record tells, and one that has ended."""
    going = make_run(server.home, rounds=200, run_id="a0" * 32)
    write_rows(going, event_rows(going, until=30))
    going.update_info(state="running", name="going")
    over = make_run(server.home, rounds=60, run_id="b1" * 32)
    write_rows(over, event_rows(over))
    over.update_info(state="stopped", name="over")
    yield going, over
    for run in (going, over):
        shutil.rmtree(run.path, ignore_errors=True)


def test_everything_that_leads_to_a_run(lab: Callable[..., LabPage], two: tuple[RunDirectory, RunDirectory]) -> None:
    going, over = two
    page = lab()
    desk = page.page

    # The setting of an account is in the form that the launcher's card opens.
    page.done("settingeditor:open", query="Training Runs")
    with desk.expect_response(lambda reply: "/settings/" in reply.url and reply.request.method == "PUT"):
        desk.locator('.jp-SettingsPanel input[label="Default account"]').fill("lab-z")
    page.done("launcher:create")
    desk.locator(".jp-LauncherCard:visible", has_text="Training run").click()
    desk.locator(".plab-form-body").wait_for()
    assert desk.locator(".plab-form").get_by_label("account", exact=True).input_value() == "lab-z"

    # The status bar counts, and leads to the panel; the running sessions name the live run and open it.
    status = desk.locator(".plab-status")
    assert "1 live run" in status.inner_text()
    status.click()
    page.line(over.id).wait_for()
    page.done("running:show-panel")
    session = desk.locator(".jp-RunningSessions-item", has_text="going")
    session.wait_for()
    assert desk.locator(".jp-RunningSessions-item", has_text="over").count() == 0
    session.locator(".jp-RunningSessions-itemLabel").click()
    page.run_view(going.id)

    # A run dragged into a notebook is a cell.
    page.done("notebook:create-new", kernelName="python3")
    desk.locator(".jp-Notebook .jp-Cell .cm-content").wait_for()
    page.panel()
    page.drag(page.line(over.id), desk.locator(".jp-Notebook .jp-Cell"), shown=".plab-drag")
    desk.locator(".jp-Notebook .jp-Cell", has_text=f'pl.open_run("{over.id}")').wait_for()
    assert page.ours() == []


def test_runs_are_compared_measured_and_deleted_by_a_key(
    lab: Callable[..., LabPage], two: tuple[RunDirectory, RunDirectory]
) -> None:
    going, over = two
    page = lab()
    desk = page.page
    page.panel()
    page.line(over.id).click()
    page.done("pluralis-lab:compare-runs", runs=[going.id, over.id])
    desk.locator(".plab-compare", has_text="A going beside B over").wait_for()

    page.command("pluralis-lab:disk-use")
    row = desk.locator(".plab-disk-use tr", has_text="over")
    row.wait_for()
    assert "kB" in row.inner_text()
    page.answer("Close")

    page.line(over.id).click()
    desk.keyboard.press("Delete")
    assert "run over" in page.answer("Keep it")
    assert over.path.exists()
    page.line(over.id).click()
    desk.keyboard.press("Delete")
    page.answer("Delete for good")
    page.line(over.id).wait_for(state="detached")
    assert not over.path.exists()
    assert going.path.exists()
    assert page.ours() == []


def test_a_shared_hub_in_read_only_mode_shows_and_commands_nothing(
    lab: Callable[..., LabPage], server: LabServer, two: tuple[RunDirectory, RunDirectory]
) -> None:
    going, over = two
    hub = LabServer(server.folder, server.home, options=("--PluralisLabExtension.read_only=True",))
    try:
        page = lab(server=hub.start())
        panel = page.panel()
        page.line(over.id).click()
        for name in ("New run…", "Stop…", "Resume", "Delete…"):
            assert panel.get_by_role("button", name=name).filter(visible=True).count() == 0, name
        assert page.page.locator(".jp-LauncherCard", has_text="Training run").count() == 0
        view = page.open_run(going.id)
        page.pane(view, "Workers").locator(".plab-grid-row[data-worker]").first.click()
        page.pane(view, "Ownership")
        for name in ("Add a worker…", "Stop…", "Kill this worker…", "Pay…", "Claim…", "Tokenize…"):
            assert view.get_by_role("button", name=name).filter(visible=True).count() == 0, name
        for command in ("attach-worker", "stop-run", "delete-run", "new-run", "kill-worker"):
            assert not page.page.evaluate("id => window.jupyterapp.commands.isEnabled(id)", f"pluralis-lab:{command}"), command
        assert page.ours() == []
    finally:
        hub.stop()
