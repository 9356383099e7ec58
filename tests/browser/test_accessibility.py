"""For everybody: axe-core finds nothing serious, the keyboard is enough, less motion and forced colours are honoured."""

from collections.abc import Callable
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.store import RunDirectory
from tests.browser.labpage import LabPage
from tests.browser.labserver import ROOT, LabServer
from tests.views.made_up_run import event_rows, make_run, write_rows

pytestmark = [pytest.mark.system("chromium"), pytest.mark.timeout(180)]

AXE = ROOT / "extensions" / "jupyterlab" / "node_modules" / "axe-core" / "axe.min.js"
PANES = ("Overview", "Contributions", "Ownership", "Evidence", "Ask", "Workers", "Topology")

# JupyterLab's own nodes are around ours, not inside: what is asked for is inside ours.
RUN_AXE = """async selector => {
    const { violations } = await axe.run({ include: [[selector]] }, { resultTypes: ["violations"] });
    return violations
        .filter(one => one.impact === "serious" || one.impact === "critical")
        .flatMap(one => one.nodes.map(node => `${one.id}: ${node.html.slice(0, 160)}: ${node.failureSummary?.slice(0, 300)}`));
}"""

MOVING = """() => document.getAnimations()
    .filter(one => one.playState === "running" && one.effect.target?.closest(".plab, .plab-panel, .plab-form"))
    .map(one => String(one.animationName ?? one.transitionProperty))"""


@pytest.fixture(scope="module")
def owned(finished: pl.Run) -> pl.Run:
    """The finished run with its token, and a payment on it."""
    finished.tokenize().pay(ether="0.25", account="lab-b")
    return finished


@pytest.fixture(scope="module")
def going(server: LabServer) -> RunDirectory:
    """A made-up run in the middle: a worker is dead, nothing is over."""
    run = make_run(server.home, rounds=200, run_id="60" * 32, own_data=0.5)
    return write_rows(run, event_rows(run, until=92))


def surfaces(lab: LabPage, run: str, other: str) -> dict[str, Callable[[], Any]]:
    """Everything of ours that can be on the screen: how to show it, by the selector that it is found with."""
    page = lab.page

    def pane(title: str) -> Callable[[], Any]:
        def show() -> None:
            view = lab.open_run(run)
            shown = lab.pane(view, title)
            if title == "Workers":
                shown.locator(".plab-grid-row[data-worker]").first.click()
                shown.locator(".plab-log:not(:empty)").wait_for()

        return show

    def form() -> None:
        lab.done("pluralis-lab:new-run")
        page.locator(".plab-estimate dt").first.wait_for()
        more = page.locator(".plab-form details.plab-more")
        if more.get_attribute("open") is None:
            more.locator("summary").click()

    def attach() -> None:
        lab.command("pluralis-lab:attach-worker", run=other)
        page.locator(".plab-attach option", has_text="lab-c").wait_for(state="attached")

    def invite() -> None:
        lab.answer("Cancel")  # no worker is added
        lab.command("pluralis-lab:invite-workers", run=other)
        page.locator(".plab-invite option", has_text="stage 0: ").wait_for(state="attached")

    def question() -> None:
        lab.answer("Cancel")  # nobody is invited
        pane("Ownership")()
        lab.run_view(run).get_by_role("button", name="Claim…").click()
        page.locator(".plab-confirm").wait_for()

    def compare() -> None:
        lab.done("pluralis-lab:compare-runs", runs=[run, other])
        page.locator(".plab-compare svg").first.wait_for()

    return {
        "#pluralis-lab-panel": lambda: lab.panel() and lab.line(run).click(),
        ".plab-form": form,
        ".plab-compare": compare,
        f"#pluralis-lab-run-{run} .plab-run-header": lambda: lab.open_run(run),
        **{f'#pluralis-lab-run-{run} .plab-pane[data-pane="{title.lower()}"]': pane(title) for title in PANES},
        ".plab-attach": attach,
        ".plab-invite": invite,
        ".plab-confirm": question,
    }


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def test_axe_finds_nothing_serious(
    lab: Callable[..., LabPage],
    owned: pl.Run,
    going: RunDirectory,
    theme: str,
    require_system: Callable[[str, bool, str], None],
) -> None:
    require_system("axe-core", AXE.is_file(), "make ui")
    page = lab(reduced_motion="reduce")  # nothing is caught between two colours
    page.theme(theme)
    page.panel()
    page.line(owned.id).wait_for()
    page.page.evaluate(AXE.read_text())
    found = {}
    for selector, show in surfaces(page, owned.id, going.id).items():
        show()
        page.page.locator(selector).first.wait_for()
        if serious := page.page.evaluate(RUN_AXE, selector):
            found[selector] = serious
    assert found == {}
    page.answer("Cancel")
    page.theme("JupyterLab Light")  # it is kept by the server, which other tests use, too
    assert page.ours() == []


def test_the_keyboard_is_enough(lab: Callable[..., LabPage], owned: pl.Run, going: RunDirectory) -> None:
    page = lab()
    keyboard = page.page.keyboard
    # The palette, as anybody finds a command.
    keyboard.press("Control+Shift+C")
    palette = page.page.locator(".lm-CommandPalette-input")
    palette.wait_for()
    keyboard.type("Show Training Runs")
    page.page.locator(".lm-CommandPalette-item.lm-mod-active", has_text="Show Training Runs").wait_for()
    keyboard.press("Enter")
    page.page.wait_for_function("document.activeElement.matches('.plab-line-item')")
    walked = []
    keyboard.press("Home")
    for _ in range(page.page.locator(".plab-line-item").count()):
        walked.append(page.page.evaluate("document.activeElement.dataset.run"))
        keyboard.press("ArrowDown")
    assert {owned.id, going.id} <= set(walked)
    keyboard.press("Home")
    for _ in range(walked.index(owned.id)):
        keyboard.press("ArrowDown")
    keyboard.press("Enter")
    view = page.run_view(owned.id)
    # On the tabs of the panes, along them, and into another pane.
    page.page.wait_for_function("document.activeElement.matches('.plab-dock .lm-TabBar-tab')")
    keyboard.press("ArrowRight")
    keyboard.press("Enter")
    contributions = view.locator('.plab-pane[data-pane="contributions"]')
    contributions.wait_for()
    _press_until(page, "Tab", '.plab-pane[data-pane="contributions"] *')
    assert page.ours() == []


def _press_until(lab: LabPage, key: str, selector: str) -> None:
    for _ in range(40):
        lab.page.keyboard.press(key)
        if lab.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"40 times {key} do not lead to {selector}")


def test_with_less_motion_nothing_moves(lab: Callable[..., LabPage], going: RunDirectory) -> None:
    still = lab(reduced_motion="reduce")
    for title in PANES:
        still.pane(still.open_run(going.id), title)
        assert still.page.evaluate(MOVING) == [], title
    assert still.page.locator(".plab-map.plab-still").count() == 1
    assert still.ours() == []


def test_forced_colours_are_drawn(lab: Callable[..., LabPage], going: RunDirectory) -> None:
    page = lab(forced_colors="active")
    assert page.page.evaluate("matchMedia('(forced-colors: active)').matches")
    page.panel()
    view = page.open_run(going.id)
    for title in PANES:
        pane = page.pane(view, title)
        assert len(pane.inner_text()) > 40
        assert pane.locator(".plab-note-trouble:not([hidden])").count() == 0
    # A state is a sign and a word, whatever becomes of its colour.
    dead = page.pane(view, "Topology").locator('.plab-node[data-state="dead"]')
    assert "✕" in dead.text_content()
    assert page.ours() == []
