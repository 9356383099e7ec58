"""One Chromium and one JupyterLab server for the tests of a module, and runs that were really made.

Not for the whole folder: while Playwright runs, no other test of this process can have an event loop.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.engines import processes
from pluralis_lab.store import list_runs
from tests.browser.labpage import LabPage
from tests.browser.labserver import LabServer
from tests.chromium import chromium
from tests.homes import shared_home

EXTENSION = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "pluralis-lab" / "package.json"


@pytest.fixture(scope="module")
def built(require_system: Callable[[str, bool, str], None]) -> None:
    """Go on where the extension is built and installed for this Python."""
    require_system("built-extension", EXTENSION.is_file(), "make ui")


@pytest.fixture(scope="module")
def browser(built: None) -> Iterator[Any]:
    """One Chromium for all tests of a module."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def home(built: None) -> Iterator[Path]:
    """A home whose runs are ended afterwards, whatever became of the test that started them."""
    with shared_home() as path:
        # Signing for a payment takes the daemon of the home: it is there before a page asks for it.
        pl.Chain.embedded(home=path).account("lab-a")
        yield path
        for run in list_runs(path):
            if processes.is_running(run):
                processes.stop(run)


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """JupyterLab on the runs of `home`."""
    running = LabServer(tmp_path_factory.mktemp("lab"), home)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def lab(browser: Any, server: LabServer, request: pytest.FixtureRequest) -> Iterator[Callable[..., LabPage]]:
    """`lab("lab?reset", reduced_motion="reduce")` opens a page; `lab(server=other)` one of another server."""
    pages: list[LabPage] = []

    def opened(path: str = "lab?reset", *, server: LabServer = server, **context: Any) -> LabPage:
        page = LabPage(browser, server, **context)
        pages.append(page)
        return page.open(path)

    yield opened
    folder = os.environ.get("PLURALIS_LAB_SHOTS")
    for number, page in enumerate(pages):
        if folder:
            page.page.screenshot(path=Path(folder) / f"{request.node.name}-{number}.png")
        page.close()


@pytest.fixture(scope="module")
def finished(home: Path) -> pl.Run:
    """A simulated run of two participants with four closed epochs, bound to the embedded chain of `home`."""
    from tests.engines.swarm.conftest import small_spec

    spec = small_spec(steps=8, epoch_rounds=2, eval_every=2, checkpoint_every=4, batch_size=4)
    chain = pl.Chain.embedded(home=home)
    return pl.simulate(spec, chain=chain, account="lab-a", participants=["lab-a", "lab-b"]).wait(timeout_s=120)
