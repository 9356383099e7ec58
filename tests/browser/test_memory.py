"""Ten minutes in front of a large live run: the page does not grow."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.recorded_run import RecordedRun
from tests.browser.labpage import LabPage
from tests.browser.labserver import LabServer

pytestmark = [pytest.mark.deep, pytest.mark.system("chromium"), pytest.mark.timeout(1200)]

WORKERS, EVENTS = 500, 1_000_000
MINUTES, WARM_MINUTES = 10, 2
INTERVAL_S, PANE_S = 0.25, 10.0
PANES = ("Contributions", "Workers", "Topology", "Overview", "Ownership", "Evidence")
GROWTH = 1.10
"""Of the least heap of the last minutes over the least of the first that are warm; what is drawn differs from pane to pane."""


@dataclass(frozen=True)
class Footprint:
    """What the page holds after a garbage collection."""

    heap_bytes: int
    nodes: int
    listeners: int


@pytest.fixture
def recording(home: Path) -> Iterator[RecordedRun]:
    recorded = RecordedRun(home, workers=WORKERS, events=EVENTS)
    yield recorded
    recorded.directory.update_info(state="stopped")
    recorded.close()


def footprint(devtools: object) -> Footprint:
    ask = devtools.send  # type: ignore[attr-defined]
    ask("HeapProfiler.collectGarbage")
    counters = ask("Memory.getDOMCounters")
    return Footprint(ask("Runtime.getHeapUsage")["usedSize"], counters["nodes"], counters["jsEventListeners"])


def test_ten_minutes_of_a_live_run_do_not_grow_the_page(
    lab: Callable[..., LabPage], server: LabServer, recording: RecordedRun
) -> None:
    page = lab()
    view = page.open_run(recording.directory.id)
    devtools = page.context.new_cdp_session(page.page)
    panes = itertools.cycle(PANES)
    begun, ticks, next_pane, seen = time.monotonic(), 0, 0.0, []
    while (now := time.monotonic() - begun) < 60 * MINUTES:
        recording.add_quarter(ticks % 4)
        ticks += 1
        if now >= next_pane:
            page.pane(view, next(panes))
            next_pane += PANE_S
        if now >= 60 * (len(seen) + 1):
            seen.append(footprint(devtools))
            print(f"minute {len(seen)}: {seen[-1]}", flush=True)
        page.page.wait_for_timeout(max(0.0, 1000 * (begun + ticks * INTERVAL_S - time.monotonic())))
    page.page.wait_for_function(
        "([run, seq]) => Number(document.querySelector(`#pluralis-lab-run-${run} .plab-run-view`).dataset.seq) >= seq",
        arg=[recording.directory.id, recording.totals.events],
    )
    seen.append(footprint(devtools))
    print(f"minute {len(seen)}: {seen[-1]}", flush=True)
    warm, late = seen[WARM_MINUTES - 1 : WARM_MINUTES + 2], seen[-3:]
    for figure in ("heap_bytes", "nodes", "listeners"):
        before, after = (min(getattr(one, figure) for one in some) for some in (warm, late))
        assert after <= GROWTH * before, f"{figure}: {before} at first, {after} at last; every minute: {seen}"
    assert page.ours() == []
