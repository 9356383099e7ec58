"""The live view as a reader sees it: in Chromium, on light and dark, with a keyboard, and with hostile names."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser_harness import browser_page, served, write_page
from made_up_run import KILLED, event_rows, make_run, write_rows

from pluralis_lab.store import Event, RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import compact_payload
from tests.chromium import chromium

pytestmark = pytest.mark.system("chromium")


def _state(picture: RunPicture, **changes: Any) -> dict[str, Any]:
    pulse = {"sent": 0, "silent_s": 0.3, "problem": ""}
    return {"picture": compact_payload(picture), "pulse": pulse, "can_stop": True, "stop_state": "idle"} | changes


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this file."""
    with chromium() as running:
        yield running


Opener = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def view(browser: Any, tmp_path: Path) -> Opener:
    """Return ``view(state, theme, width)``: a page with the view on `state`; when its block ends the console must be clean."""

    @contextmanager
    def opened(state: dict[str, Any], theme: str = "light", width: int = 980) -> Iterator[Any]:
        folder = tmp_path / "page"
        folder.mkdir()
        write_page(folder, state, theme)
        with served(folder) as address, browser_page(browser, address, width=width, dark=theme == "dark") as (page, errors):
            yield page
            assert errors == []

    return opened


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_values_appear_and_a_dead_worker_is_marked(half_run: RunDirectory, view: Opener, theme: str) -> None:
    picture = RunPicture.of(half_run)
    with view(_state(picture), theme) as page:
        text = page.locator(".plab").inner_text()
        for expected in (
            "92 of 200 rounds",
            f"{picture.loss.last:.3f} nats",
            "5 of 6 live",
            "34.6 B a token",
            "462 k of 1.29 M parameters",
        ):
            assert expected in text
        row = page.locator(f'tr[data-worker="{KILLED}"]')
        assert row.get_attribute("data-state") == "dead"
        assert "✕" in row.inner_text()
        assert "dead" in row.inner_text()
        node = page.locator(f'.plab-node[data-worker="{KILLED}"]')
        assert node.get_attribute("data-state") == "dead"
        assert "✕" in node.text_content()
        assert page.locator(".plab-chart path.plab-line").count() == 3
        assert page.locator(".plab-chart .plab-mark-death").count() == 2
        assert page.locator(".plab").get_attribute("data-theme") == theme
        assert _contrast(page, ".plab-heading") >= 7
        assert _contrast(page, ".plab-pill.plab-live") >= 4.5
        assert _contrast(page, ".plab-pill.plab-dead") >= 4.5
        assert _contrast(page, ".plab-figure-label") >= 4.5


def _contrast(page: Any, selector: str) -> float:
    """Return the contrast ratio (WCAG 2) of an element's text with what is painted behind it."""
    script = """(node) => {
      const numbers = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
      let ground = [0, 0, 0, 0];
      for (let at = node; at && !(ground[3] > 0); at = at.parentElement) {
        const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
        ground = [r, g, b, a];
      }
      const [r, g, b, a = 1] = numbers(getComputedStyle(node).color);
      const ink = [r, g, b].map((part, i) => part * a + ground[i] * (1 - a));
      const luminance = (rgb) => {
        const [x, y, z] = rgb.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
      };
      const [light, dark] = [luminance(ink), luminance(ground)].sort((p, q) => q - p);
      return (light + 0.05) / (dark + 0.05);
    }"""
    return float(page.locator(selector).first.evaluate(script))


def test_without_a_host_theme_the_view_follows_the_system(half_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(half_run)), "none") as page:
        assert page.locator(".plab").get_attribute("data-theme") == "light"
        page.emulate_media(color_scheme="dark")
        page.wait_for_selector('.plab[data-theme="dark"]')
        assert _contrast(page, ".plab-heading") >= 7


def test_a_change_of_theme_while_the_view_is_open_is_followed(half_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(half_run)), "light") as page:
        page.evaluate(
            "document.documentElement.style.setProperty('--jp-layout-color1', '#111');"
            "document.body.dataset.jpThemeLight = 'false'"
        )
        page.wait_for_selector('.plab[data-theme="dark"]')


def test_an_update_changes_the_figures_in_place(tmp_path: Path, view: Opener) -> None:
    run = make_run(tmp_path / "home")
    rows = list(event_rows(run))
    rounds = [i for i, row in enumerate(rows) if row[0] == "round"]
    write_rows(run, iter(rows[: rounds[86] + 1]))
    picture = RunPicture.of(run)
    with view(_state(picture)) as page:
        row = page.locator(f'tr[data-worker="{KILLED}"]')
        assert row.get_attribute("data-state") == "active"
        page.evaluate("window.kept = document.querySelector('tr[data-worker=\"worker-3\"]')")
        write_rows(run, iter(rows[rounds[86] + 1 : rounds[90] + 1]))
        picture.update(run.events(since=picture.seq))
        page.evaluate("(next) => model.set('picture', next)", compact_payload(picture))
        page.wait_for_selector(f'tr[data-worker="{KILLED}"][data-state="dead"]')
        assert page.evaluate("window.kept === document.querySelector('tr[data-worker=\"worker-3\"]')")
        assert "91 of 200 rounds" in page.locator(".plab-header").inner_text()
        assert "worker-3 died in round 87" in page.locator(".plab [aria-live=polite]").text_content()


def test_a_worker_that_is_attached_is_seen_coming_and_marked(half_run: RunDirectory, view: Opener) -> None:
    picture = RunPicture.of(half_run)
    told = {"stage": 2, "replica": 2, "participant": "lab-z", "device": "cpu"}
    with view(_state(picture)) as page:
        for kind, state in (("enrolled", "starting"), ("worker.state", "syncing"), ("worker.state", "active")):
            picture.update([Event(picture.seq + 1, 0.0, kind, "worker-6", 91, {"state": state, **told})])
            page.evaluate("(next) => model.set('picture', next)", compact_payload(picture))
            page.wait_for_selector(f'tr[data-worker="worker-6"][data-state="{state}"]')
            page.wait_for_selector(f'.plab-node[data-worker="worker-6"][data-state="{state}"]')
        assert "worker-6 of lab-z joined stage 2 in round 91" in page.locator(".plab-notes").inner_text()
        assert page.locator(".plab-mark-joined").first.text_content().startswith("+")


def test_who_has_nothing_to_do_and_how_late_a_stage_is_are_shown(half_run: RunDirectory, view: Opener) -> None:
    told = compact_payload(RunPicture.of(half_run))
    for worker in told["workers"]:
        worker |= {"idle": worker["name"] == "worker-1", "busy": 0.02, "delay": 1.5 if worker["stage"] == 0 else None}
    with view(_state(RunPicture.of(half_run))) as page:
        assert page.get_by_text("idle").count() == 0
        page.evaluate("(next) => model.set('picture', next)", told)
        pill = page.locator('tr[data-worker="worker-1"] .plab-pill')
        pill.get_by_text("active, idle").wait_for()
        assert "computing 2" in pill.get_attribute("title")
        assert page.locator('.plab-node[data-worker="worker-1"] .plab-node-detail').text_content() == "active, idle"
        stages = page.locator(".plab-stage th").all_inner_texts()
        assert "gradients 1.5 steps late, 1 idle" in stages[0]
        assert not any("idle" in stage or "late" in stage for stage in stages[1:])


def test_before_the_first_event_the_view_says_what_is_being_started(empty_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(empty_run))) as page:
        assert "starting six workers…" in page.locator(".plab-empty").inner_text()
        assert page.locator(".plab-chart").first.is_hidden()
        assert page.locator(".plab-node").count() == 6


def test_a_failed_run_says_why_and_cannot_be_stopped_again(half_run: RunDirectory, view: Opener) -> None:
    picture = RunPicture.of(half_run)
    body = {"state": "failed", "reason": "worker-1: out of memory"}
    picture.update([Event(picture.seq + 1, picture.last_time or 0.0, "run.state", None, None, body)])
    with view(_state(picture)) as page:
        assert page.get_by_role("alert").inner_text() == "failed: worker-1: out of memory"
        assert page.locator(".plab-stop").is_hidden()


def test_a_finished_run_is_called_finished_and_is_never_stale(finished_run: RunDirectory, view: Opener) -> None:
    silent = {"sent": 0, "silent_s": 86_400, "problem": ""}
    with view(_state(RunPicture.of(finished_run), pulse=silent)) as page:
        assert "finished" in page.locator(".plab-header").inner_text()
        assert page.locator(".plab-stale").is_hidden()


def test_silence_of_the_run_is_marked_and_goes_with_the_next_news(half_run: RunDirectory, view: Opener) -> None:
    silent = {"sent": 0, "silent_s": 12.2, "problem": ""}
    with view(_state(RunPicture.of(half_run), pulse=silent)) as page:
        shown = re.search(r"no news for (\d+) s", page.locator(".plab-stale").inner_text())
        assert shown is not None
        assert int(shown[1]) >= 12  # the page counts on from what it was told
        page.evaluate("model.set('pulse', {sent: 1, silent_s: 0.2, problem: ''})")
        page.wait_for_selector(".plab-stale", state="hidden")


def test_silence_of_the_kernel_is_told_apart_from_silence_of_the_run(half_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(half_run))) as page:
        page.clock.install()
        page.reload()
        page.wait_for_selector(".plab[data-seq]", state="attached")
        page.clock.run_for(20_000)
        assert "the kernel has sent nothing for" in page.locator(".plab-stale").inner_text()


def test_stop_asks_first_and_is_sent_once_by_keyboard(half_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(half_run))) as page:
        page.get_by_role("button", name="Stop…").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.textContent") == "Keep it"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.textContent") == "Stop…"
        assert page.evaluate("model.sent") == []
        page.keyboard.press("Enter")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("model.sent") == [{"command": "stop"}]
        page.evaluate("model.set('stop_state', 'failed: RunError: no supervisor')")
        assert "failed: RunError: no supervisor" in page.locator(".plab-stop").inner_text()


def test_without_a_stop_callback_there_is_no_button(half_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(half_run), can_stop=False)) as page:
        assert page.get_by_role("button").count() == 0


def test_single_rounds_can_be_read_with_the_arrow_keys(half_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(half_run))) as page:
        page.locator(".plab-plot").first.focus()
        page.keyboard.press("Home")
        readout = page.locator(".plab-readout").first
        assert readout.inner_text().startswith("round 0: train 5.49")
        page.keyboard.press("End")
        assert readout.inner_text().startswith("round 91: train")
        assert readout.get_attribute("role") == "status"


def test_hostile_names_are_text(tmp_path: Path, view: Opener) -> None:
    names = [
        "<script>window.owned=1</script>",
        '"><img src=x onerror="window.owned=1">',
        "worker-2",
        "__proto__",
        "constructor",
        "x" * 300,
    ]
    run = make_run(tmp_path / "home", rounds=10, names=names, participants=("<svg onload=window.owned=1>", "constructor"))
    write_rows(run, event_rows(run))
    with view(_state(RunPicture.of(run))) as page:
        assert page.evaluate("window.owned") is None
        assert page.locator(".plab img, .plab script").count() == 0
        assert names[0] in page.locator(".plab-workers").inner_text()
        assert page.locator(".plab-workers tr[data-worker]").count() == 6
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("width", [360, 980])
def test_the_page_does_not_scroll_sideways(half_run: RunDirectory, view: Opener, width: int) -> None:
    with view(_state(RunPicture.of(half_run)), width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_closing_the_view_leaves_nothing_behind(half_run: RunDirectory, view: Opener) -> None:
    with view(_state(RunPicture.of(half_run))) as page:
        page.evaluate("window.destroy()")
        assert page.locator("#cell > div").inner_html() == ""
        assert page.evaluate("Object.values(handlers).flat().length") == 0
        page.evaluate("model.set('pulse', {silent_s: 1})")
