"""A notebook that papermill executed, opened later: in JupyterLab, in Notebook 7, without styles, and without a server."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from tests.browser.executing import executed_by_papermill
from tests.browser.labpage import LabPage
from tests.browser.labserver import ROOT, LabServer

pytestmark = [pytest.mark.system("chromium"), pytest.mark.timeout(180)]

MIME = "application/vnd.pluralis.run+json"
CELLS = (
    "import pluralis_lab as pl\nfrom tests.engines.swarm.conftest import small_spec",
    "spec = small_spec(steps=6, epoch_rounds=2, eval_every=2)\n"
    'run = pl.simulate(spec, account="lab-a", participants=["lab-a", "lab-b"])\nrun.wait();',
    "run.watch()",
    'run.figure("loss")',
    "run",
    "run.contributions()",
)
WATCHED, FIGURE = 2, 3
QUICKSTART = ROOT / "build" / "quickstart"
BAR = ".plab-output-bar"


@pytest.fixture(scope="module")
def executed(home: Path, server: LabServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, pl.Run]:
    """The notebook's outputs as papermill stored them, and the run that they show."""
    outputs = executed_by_papermill(CELLS, tmp_path_factory.mktemp("papermill"), home)
    (stored,) = [output["data"][MIME] for output in outputs.cells[WATCHED].outputs if MIME in output.get("data", {})]
    return outputs, pl.open_run(stored["run"])


@pytest.fixture
def notebook(executed: tuple[Any, pl.Run], server: LabServer) -> str:
    """The name of the executed notebook in the server's folder; nobody there has trusted it."""
    import nbformat

    nbformat.write(executed[0], server.notebooks / "executed.ipynb")
    return "executed.ipynb"


def test_an_untrusted_papermill_output_comes_alive(
    lab: Callable[..., LabPage], notebook: str, executed: tuple[Any, pl.Run]
) -> None:
    _, run = executed
    page = lab(f"lab/tree/{notebook}?reset")
    bar = page.page.locator(f'{BAR}[data-kind="live"]').first
    bar.wait_for()
    assert "read from this machine" in bar.inner_text()
    trusted = page.page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.trusted)")
    assert trusted[WATCHED] is False
    view = page.page.locator(f'.plab-output .plab[data-run="{run.id}"]').first
    # Of this machine's record, not of the stored picture: all events are in it.
    assert int(view.get_attribute("data-seq")) == run._directory.last_seq()
    assert f"{run.spec.steps} of {run.spec.steps} rounds" in view.inner_text()
    bar.get_by_role("button", name="Open").click()
    page.run_view(run.id)
    assert page.ours() == []


def test_a_run_that_is_not_on_this_machine_is_shown_as_it_was_stored(
    lab: Callable[..., LabPage], server: LabServer, executed: tuple[Any, pl.Run]
) -> None:
    text = json.dumps(executed[0]).replace(executed[1].id, "ab" * 32)
    (server.notebooks / "elsewhere.ipynb").write_text(text)
    page = lab("lab/tree/elsewhere.ipynb?reset")
    bar = page.page.locator(f'{BAR}[data-kind="stored"]', has_text="this run is not on this machine").first
    bar.wait_for()
    assert "stored picture" in bar.inner_text()
    assert bar.get_by_role("button").count() == 0
    assert "6 of 6 rounds" in page.page.locator(f'.plab-output .plab[data-run="{"ab" * 32}"]').first.inner_text()
    assert page.ours() == []


def test_it_comes_alive_in_notebook_7(
    browser: Any, lab: Callable[..., LabPage], server: LabServer, notebook: str, executed: tuple[Any, pl.Run]
) -> None:
    _, run = executed
    second = LabServer(server.folder, server.home, app="notebook")
    try:
        page = lab(f"notebooks/{notebook}", server=second.start())
        page.page.locator(f'{BAR}[data-kind="live"]').first.wait_for()
        view = page.page.locator(f'.plab-output .plab[data-run="{run.id}"]').first
        assert int(view.get_attribute("data-seq")) == run._directory.last_seq()
        page.page.locator(BAR).get_by_role("button", name="Open").first.click()
        page.page.locator(".plab-run-view[data-seq]").wait_for()
        page.done("pluralis-lab:show-panel")
        page.line(run.id).wait_for()
        assert page.ours() == []
    finally:
        second.stop()


class Stripped(HTMLParser):
    """What is left of HTML where styles, scripts and classes are taken out, as GitHub and mail readers do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []
        self._inside = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("style", "script"):
            self._inside += 1
        elif not self._inside and tag not in ("svg", "path", "link"):
            kept = " ".join(f'{name}="{value}"' for name, value in attrs if name in ("src", "alt", "scope", "colspan"))
            self.kept.append(f"<{tag} {kept}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._inside -= 1
        elif not self._inside:
            self.kept.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.kept.append(data.replace("<", "&lt;"))


def test_without_styles_it_is_still_readable(browser: Any, executed: tuple[Any, pl.Run]) -> None:
    outputs, _ = executed
    (data,) = [output["data"] for output in outputs.cells[WATCHED].outputs if MIME in output.get("data", {})]
    parser = Stripped()
    parser.feed(data["text/html"])
    page = browser.new_page()
    page.set_content("".join(parser.kept))
    text = page.locator("body").inner_text()
    for expected in ("rounds", "6 of 6", "training loss", "nats", "worker-0", "worker-3", "lab-a", "lab-b"):
        assert expected in text, text
    # A table is read row by row: no two figures run together.
    assert page.locator("table").count() >= 2
    box = page.locator("table").first.bounding_box()
    assert box["width"] > 100
    assert re.match(rb"\x89PNG", base64.b64decode(data["image/png"]))
    page.close()


def test_nbconvert_shows_all_figures_without_a_network(browser: Any, executed: tuple[Any, pl.Run], tmp_path: Path) -> None:
    from nbconvert import HTMLExporter

    outputs, _ = executed
    body, _ = HTMLExporter().from_notebook_node(outputs)
    (tmp_path / "executed.html").write_text(body)
    text = shown_offline(browser, outputs, tmp_path / "executed.html")
    assert "6 of 6" in text
    assert "training loss" in text


def test_the_executed_quickstart_shows_all_figures_without_a_network(
    browser: Any, require_system: Callable[[str, bool, str], None]
) -> None:
    import nbformat

    require_system("executed-quickstart", (QUICKSTART / "result.json").is_file(), "make quickstart")
    result = json.loads((QUICKSTART / "result.json").read_text())
    outputs = nbformat.read(QUICKSTART / "00_quickstart.ipynb", as_version=4)
    text = shown_offline(browser, outputs, QUICKSTART / "00_quickstart.html")
    for owner in result["owners"]:
        assert str(owner["name"]) in text
    assert f"{result['loss_end']:.3f}" in text


def shown_offline(browser: Any, outputs: Any, file: Path) -> str:
    """Open `file`, the HTML of `outputs`, without a network; check that every figure in it is drawn; return its text."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(f"file://{file}", wait_until="domcontentloaded")
    datas = [output.get("data", {}) for cell in outputs.cells for output in cell.get("outputs", [])]
    shown = sum(MIME in data or "image/png" in data for data in datas)
    assert shown > 0
    figures = page.locator(".jp-OutputArea-output :is(img, table, svg)")
    assert figures.count() >= shown
    for image in page.locator(".jp-OutputArea-output img").all():
        assert str(image.get_attribute("src")).startswith("data:")
        assert image.evaluate("async node => { await node.decode(); return node.naturalWidth; }") > 100
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    text = str(page.locator("body").inner_text())
    context.close()
    return text
