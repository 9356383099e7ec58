"""A notebook executed headless and exported by nbconvert shows all its figures in a browser that has no network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from made_up_run import event_rows, make_run, write_rows
from nbconvert import HTMLExporter

from pluralis_lab.run import Run
from pluralis_lab.views.figures import FIGURE_NAMES
from pluralis_lab.views.still import still
from tests.chromium import chromium

CELLS = (
    "import pluralis_lab as pl\nrun = pl.open_run({run!r})\nrun",
    "run.watch()",
    *(f'run.figure("{name}")' for name in FIGURE_NAMES),
    "run.spec",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HTML of such a notebook, executed by papermill and exported as `make quickstart` does it."""
    import papermill

    folder = tmp_path_factory.mktemp("offline")
    run = make_run(folder)
    write_rows(run, event_rows(run))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.format(run=run.id)) for cell in CELLS])
    nbformat.write(notebook, folder / "in.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLURALIS_LAB_HOME", str(folder))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        papermill.execute_notebook(
            str(folder / "in.ipynb"), str(folder / "out.ipynb"), kernel_name="python3", language="python", progress_bar=False
        )
    assert (folder / "out.ipynb").stat().st_size < 2_000_000
    body, _ = HTMLExporter(template_name="lab").from_filename(str(folder / "out.ipynb"))
    (folder / "out.html").write_text(body, encoding="utf-8")
    return folder / "out.html"


@pytest.fixture(scope="module")
def page(exported: Path) -> Iterator[Any]:
    """The page, opened from disk in a Chromium that gets nothing from any network."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1100, "height": 1000}, offline=True)
        opened = context.new_page()
        opened.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
        opened.goto(exported.as_uri(), wait_until="load")
        yield opened
        context.close()


@pytest.mark.system("chromium")
@pytest.mark.timeout(180)
def test_every_cell_shows_its_figure_offline(page: Any, exported: Path) -> None:
    cells = page.locator(".jp-CodeCell")
    assert cells.count() == len(CELLS)
    # The run, its record, and the figures: one image each, drawn, and wide enough to be read.
    for index in range(len(CELLS) - 1):
        image = cells.nth(index).locator(".jp-OutputArea img")
        assert image.count() == 1, CELLS[index]
        size = image.evaluate("(node) => [node.complete, node.naturalWidth, node.getBoundingClientRect().width]")
        assert size[0], CELLS[index]
        assert size[1] >= 1000, (CELLS[index], size)
        assert size[2] >= 500, (CELLS[index], size)
        assert image.evaluate("(node) => node.src.startsWith('data:image/png')")
    assert "worker-3 died in round 87" in cells.nth(1).inner_text()
    assert "slices the model's blocks are cut into" in cells.nth(len(CELLS) - 1).inner_text()
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0


@pytest.mark.system("chromium")
def test_the_stored_notebook_holds_what_comes_alive_in_jupyterlab(exported: Path) -> None:
    outputs = [cell["outputs"][-1]["data"] for cell in json.loads(exported.with_name("out.ipynb").read_text())["cells"]]
    for bundle in outputs[:2]:
        assert {"application/vnd.pluralis.run+json", "image/png", "text/html", "text/plain"} == set(bundle)
    for bundle in outputs[2:-1]:
        assert {"application/vnd.plotly.v1+json", "image/png", "text/plain"} == set(bundle)


@pytest.mark.parametrize("name", FIGURE_NAMES)
def test_a_figure_can_be_drawn_still_before_the_first_round_and_with_hostile_names(tmp_path: Path, name: str) -> None:
    names = ["<b>bold</b>", "$\\frac{1}{0}$", "&amp;", "x" * 200]
    run = make_run(tmp_path, rounds=12, stages=2, names=names, participants=("<img src=x>", "b"))
    assert still(Run(run).figure(name)).startswith(b"\x89PNG")
    write_rows(run, event_rows(run))
    assert still(Run(run).figure(name)).startswith(b"\x89PNG")


def test_a_trace_of_another_kind_is_left_to_the_interactive_figure(tmp_path: Path) -> None:
    import plotly.graph_objects as go

    run = make_run(tmp_path, rounds=12)
    figure = Run(write_rows(run, event_rows(run))).figure("loss")
    plain = still(figure)
    figure.add_trace(go.Pie(values=[1, 2]))
    assert still(figure) != plain, "the image says that something is not in it"
    assert repr(figure) == "<Figure Loss: 4 traces>"
