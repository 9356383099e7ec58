"""The live view of a run with 500 workers: found, folded, cheap to update, and read with a keyboard."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser_harness import browser_page, served, write_page
from made_up_run import event_rows, make_run, write_rows

from pluralis_lab.store import Event, RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import live_payload
from tests.chromium import chromium

pytestmark = pytest.mark.system("chromium")

STAGES, REPLICAS = 50, 10
UPDATE_MS = 50


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The picture of 500 workers after each of ten rounds; three workers are dead by then, one is coming."""
    run = make_run(
        tmp_path_factory.mktemp("crowd"),
        rounds=400,
        stages=STAGES,
        replicas=REPLICAS,
        participants=tuple(f"lab-{i}" for i in range(40)),
    )
    write_rows(run, event_rows(run, until=12))
    picture = RunPicture.of(run)
    for name, state in (("worker-7", "dead"), ("worker-120", "dead"), ("worker-499", "dead"), ("worker-250", "syncing")):
        body = {"state": state, "stage": int(name[7:]) // REPLICAS, "reason": "killed by signal 9" if state == "dead" else ""}
        picture.update([Event(picture.seq + 1, picture.last_time or 0.0, "worker.state", name, 12, body)])
    return list(_rounds(run, picture))


def _rounds(run: RunDirectory, picture: RunPicture) -> Iterator[dict[str, Any]]:
    now = picture.last_time or 0.0
    for at in range(12, 22):
        now += 0.5
        events = [
            ("worker.round", f"worker-{i}", {"tokens": 64 + i, "work_flops": 1e9 + i * 1e6, "grad_norm": 1 + i / 900 + at / 20,
             "agreement": 0.5 + i / 2000, "bytes_out": 1e6 + i})
            for i in range(STAGES * REPLICAS)
            if i not in (7, 120, 499, 250)
        ]  # fmt: skip
        body = {"loss": 5 - at / 10, "tokens": 4096, "seconds": 0.5, "tokens_per_s": 8192.0}
        for kind, worker, facts in [*events, ("round", None, body)]:
            picture.update([Event(picture.seq + 1, now, kind, worker, at, facts)])
        yield json.loads(json.dumps(live_payload(picture)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this file."""
    with chromium() as running:
        yield running


Opener = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def view(browser: Any, tmp_path: Path, payloads: list[dict[str, Any]]) -> Opener:
    """Return ``view(theme)``: a page with the view of 500 workers; when its block ends the console must be clean."""

    @contextmanager
    def opened(theme: str = "light", **changes: Any) -> Iterator[Any]:
        folder = tmp_path / "page"
        folder.mkdir()
        pulse = {"sent": 0, "silent_s": 0.3, "problem": ""}
        state = {"picture": payloads[0], "pulse": pulse, "can_stop": True, "stop_state": "idle"} | changes
        write_page(folder, state, theme)
        with served(folder) as address, browser_page(browser, address, dark=theme == "dark") as (page, errors):
            yield page
            assert errors == []

    return opened


def _names(page: Any) -> list[str]:
    return [str(name) for name in page.locator("tr[data-worker]").evaluate_all("rows => rows.map((row) => row.dataset.worker)")]


def _draw(page: Any) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_stages_are_folded_and_each_worker_has_a_cell(view: Opener, theme: str) -> None:
    with view(theme) as page:
        assert page.locator(".plab-cell").count() == 500
        assert page.locator('.plab-cell[data-state="dead"]').all_inner_texts() == ["✕"] * 3
        assert "worker-120, stage 12" in page.locator('.plab-cell[data-worker="worker-120"]').get_attribute("title")
        label = page.locator(".plab-map").get_attribute("aria-label")
        assert label == "500 workers in 50 stages, 496 live; dead: worker-7, worker-120, worker-499"
        assert _names(page) == []
        assert "● 9 active, ✕ 1 dead" in page.locator("tr.plab-stage").first.inner_text()
        assert "500 workers in 50 stages" in page.locator(".plab-crowd-bar").inner_text()
        assert page.locator(".plab-legend li").count() == 8
        assert "33 others" in page.locator(".plab-legend").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_only_rows_in_sight_are_in_the_page_and_scrolling_brings_the_others(view: Opener) -> None:
    with view() as page:
        page.get_by_role("button", name="Unfold all").click()
        assert page.locator(".plab-workers").get_attribute("aria-rowcount") == "551"
        first = _names(page)
        assert 10 < len(first) < 40
        assert first[0] == "worker-0"
        height = page.locator(".plab-crowd").evaluate("(list) => list.scrollHeight")
        assert abs(height - 551 * 28) < 28
        page.locator(".plab-crowd").evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
        page.wait_for_selector('tr[data-worker="worker-499"]')
        assert len(_names(page)) < 40
        assert page.locator('tr[data-worker="worker-499"]').get_attribute("aria-rowindex") == "551"
        box, row = page.locator(".plab-crowd").bounding_box(), page.locator('tr[data-worker="worker-499"]').bounding_box()
        assert row["y"] + row["height"] <= box["y"] + box["height"] + 1
        page.get_by_role("button", name="Fold all").click()
        assert _names(page) == []


def test_workers_are_found_by_name_participant_and_state(view: Opener) -> None:
    with view() as page:
        search = page.get_by_role("searchbox")
        search.fill("worker-49")
        assert _names(page) == ["worker-49", *(f"worker-49{i}" for i in range(10))]
        assert "11 of 500 workers" in page.locator(".plab-crowd-bar").inner_text()
        search.fill("DEAD lab-0")
        assert _names(page) == ["worker-120"]
        search.fill("no such worker")
        assert page.get_by_text("No worker fits this filter.").is_visible()
        search.fill("")
        page.get_by_role("button", name="dead 3").click()
        assert _names(page) == ["worker-7", "worker-120", "worker-499"]
        assert page.get_by_role("button", name="dead 3").get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="dead 3").click()
        assert _names(page) == []


def test_stages_are_walked_and_unfolded_with_the_keyboard(view: Opener) -> None:
    with view() as page:
        page.locator(".plab-fold").first.focus()
        page.keyboard.press("ArrowRight")
        assert _names(page) == [f"worker-{i}" for i in range(10)]
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.dataset.stage") == "1"
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.dataset.stage") == "49"
        page.keyboard.press("Enter")
        assert "worker-490" in _names(page)
        page.keyboard.press("Home")
        page.keyboard.press("ArrowLeft")
        assert _names(page) == []
        page.locator(".plab-fold").first.focus()
        page.locator(".plab-crowd").evaluate("(list) => { list.scrollTop = 900; }")
        _draw(page)
        assert page.evaluate("document.activeElement.classList.contains('plab-crowd')"), "focus stays in the list"


def test_what_is_typed_unfolded_and_focused_survives_an_update(view: Opener, payloads: list[dict[str, Any]]) -> None:
    with view() as page:
        page.get_by_role("searchbox").fill("lab-3")
        before = _names(page)
        page.evaluate("(next) => model.set('picture', next)", payloads[1])
        _draw(page)
        assert _names(page) == before
        assert page.evaluate("document.activeElement.value") == "lab-3"
        assert page.locator(f'tr[data-worker="{before[0]}"] .plab-number').last.inner_text() == "13"


def test_an_update_of_500_workers_is_quick(view: Opener, payloads: list[dict[str, Any]]) -> None:
    with view() as page:
        page.get_by_role("button", name="Unfold all").click()
        page.evaluate("(all) => { window.all = all; }", payloads)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def busy_s() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

        before = busy_s()
        page.evaluate(
            """async () => {
              for (const next of all) {
                model.set('picture', next);
                await new Promise((done) => setTimeout(done, 250));
              }
            }"""
        )
        spent_ms = 1000 * (busy_s() - before) / len(payloads)
        size_kb = len(json.dumps(payloads[0], separators=(",", ":"))) / 1000
        print(f"update of 500 workers: {spent_ms:.1f} ms of main thread (script, style, layout, paint), payload {size_kb:.0f} kB")
        assert spent_ms <= UPDATE_MS


def test_a_run_that_grows_changes_to_the_compact_form_and_back(view: Opener, payloads: list[dict[str, Any]]) -> None:
    few = {**payloads[0], "workers": payloads[0]["workers"][:20]}
    with view(picture=few) as page:
        assert page.locator(".plab-node").count() == 20
        assert page.get_by_role("searchbox").count() == 0
        page.evaluate("(next) => model.set('picture', next)", payloads[1])
        page.wait_for_selector(".plab-cell")
        assert page.locator(".plab-node").count() == 0
        assert page.get_by_role("searchbox").is_visible()


def test_hostile_names_stay_text_in_the_compact_form(view: Opener, payloads: list[dict[str, Any]]) -> None:
    workers = [dict(worker) for worker in payloads[0]["workers"]]
    hostile = '"><img src=x onerror="window.owned=1"><script>window.owned=1</script>'
    workers[0] |= {"name": hostile, "participant": hostile, "reason": hostile, "state": "<b>odd</b>"}
    with view(picture={**payloads[0], "workers": workers}) as page:
        page.get_by_role("searchbox").fill("<img")
        assert _names(page) == [hostile]
        assert page.locator(".plab img, .plab script, .plab b").count() == 0
        assert page.evaluate("window.owned") is None
