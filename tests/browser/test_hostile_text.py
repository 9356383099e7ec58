"""Whatever stands in an event is text: a worker that is named like a script runs nothing, anywhere."""

from collections.abc import Callable
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.store import RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import MIME_TYPE, compact_payload
from tests.browser.labpage import LabPage
from tests.browser.labserver import LabServer
from tests.views.made_up_run import event_rows, make_run, write_rows

pytestmark = [pytest.mark.system("chromium"), pytest.mark.timeout(120)]

RUN = "bad0" * 16
SCRIPT = "<img src=x onerror=window.plabPwned=1><script>window.plabPwned=2</script>"
PANES = ("Overview", "Contributions", "Ownership", "Evidence", "Workers", "Topology")
FOREIGN = ".plab img[src='x'], .plab script, .plab-panel img[src='x'], .plab-output img[src='x'], .jp-Dialog img[src='x']"


@pytest.fixture(scope="module")
def hostile(server: LabServer) -> RunDirectory:
    """A run written by somebody who hopes that a name is drawn as HTML."""
    names = [f"{SCRIPT}{number}" for number in range(6)]
    people = tuple(f"{SCRIPT}lab-{letter}" for letter in "abc")
    run = make_run(server.home, rounds=120, names=names, participants=people, run_id=RUN)
    write_rows(run, event_rows(run, until=92))
    place = {"stage": 0, "replica": 0, "participant": people[0], "device": SCRIPT, "pid": 1, "incarnation": 0, "parameters": 9}
    writer = run.writer()
    try:
        writer.append("worker.state", names[0], 91, {"state": "dead", "reason": SCRIPT, **place})
        writer.append("worker.state", names[1], 91, {"state": SCRIPT, "reason": SCRIPT, **place})
        writer.append("error", names[0], 91, {"message": SCRIPT, "where": SCRIPT, "type": SCRIPT})
        writer.append(SCRIPT, SCRIPT, 91, {SCRIPT: SCRIPT})
        writer.append("run.state", None, 91, {"state": "failed", "reason": SCRIPT})
    finally:
        writer.close()
    run.update_info(name=SCRIPT, state="failed", reason=SCRIPT, account=SCRIPT)
    return run


def harmless(lab: LabPage) -> None:
    assert lab.page.evaluate("window.plabPwned") is None
    assert lab.page.locator(FOREIGN).count() == 0


def test_in_the_panel_and_the_view_it_is_text(lab: Callable[..., LabPage], hostile: RunDirectory, finished: pl.Run) -> None:
    page = lab()
    panel = page.panel()
    page.line(RUN).click()
    assert SCRIPT in page.line(RUN).inner_text()
    assert SCRIPT in panel.locator(".plab-detail-reason").inner_text()
    harmless(page)
    view = page.open_run(RUN)
    for title in PANES:
        pane = page.pane(view, title)
        if title != "Evidence":  # which tells of no name before an audit
            pane.get_by_text("<img src=x", exact=False).first.wait_for(state="attached")
        assert pane.get_by_text("This pane cannot be drawn").count() == 0, title
        harmless(page)
    # Its log cannot be asked for under such a name: the refusal is shown as text, too.
    workers = page.pane(view, "Workers")
    workers.locator(".plab-grid-row[data-worker]").first.click()
    workers.locator(".plab-log-tail").get_by_text("<img src=x", exact=False).first.wait_for()
    page.done("pluralis-lab:compare-runs", runs=[RUN, finished.id])
    page.page.locator(".plab-compare").get_by_text("<img src=x", exact=False).first.wait_for()
    page.command("pluralis-lab:delete-run", run=RUN)
    assert SCRIPT in page.answer("Keep it")
    harmless(page)


def test_in_a_stored_output_it_is_text(lab: Callable[..., LabPage], server: LabServer, hostile: RunDirectory) -> None:
    import nbformat

    live = compact_payload(RunPicture.of(hostile))
    # By hand: values of other types than a picture has, and a run that is not on this machine.
    forged: dict[str, Any] = {**live, "run": "bad1" * 16, "name": SCRIPT, "state": SCRIPT, "reason": [SCRIPT]}
    outputs = [
        nbformat.v4.new_output("display_data", data={MIME_TYPE: picture, "text/plain": "run"})
        for picture in (live, forged, {"version": SCRIPT}, {**live, "workers": SCRIPT})
    ]
    cell = nbformat.v4.new_code_cell("run", outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), server.notebooks / "hostile.ipynb")
    page = lab("lab/tree/hostile.ipynb?reset")
    page.page.locator(f'.plab-output .plab[data-run="{RUN}"]').first.wait_for()
    page.page.locator('.plab-output-bar[data-kind="live"]').first.wait_for()
    assert "<img src=x" in page.page.locator(".plab-output").first.inner_text()
    assert page.page.locator(".plab-output").count() == 4
    assert page.page.locator(".plab-output .plab-fault").count() >= 2, "what is no picture is said to be none"
    harmless(page)
    assert [one for one in page.ours() if one.kind == "exception"] == []
