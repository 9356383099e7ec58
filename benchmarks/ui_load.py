"""Load of the JupyterLab view: a recorded run of 500 workers and 1,000,000 events, a browser on it, and twenty viewers of it.

The right answer comes first: the totals of the picture that the server sends are those of the events that were written.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.recorded_run import RecordedRun
from benchmarks.result import Result
from benchmarks.viewers import Samplers, Viewers
from tests.browser.labpage import LabPage
from tests.browser.labserver import LabServer
from tests.chromium import CHROMIUM, chromium

WORKERS, EVENTS = 500, 1_000_000
QUICK_WORKERS, QUICK_EVENTS = 100, 50_000
NUM_VIEWERS = 20
INTERVAL_S = 0.25
WATCH_S, WATCHES = 8.0, 5
PAINTS = 3
PEER_ROUNDS = 6
ROUNDED = 1e-4
"""A picture's figures have five digits."""

# From the command to the frame after the one in which the curve of the loss is on the page.
OPEN_AND_TIME = """async run => {
    const begun = performance.now();
    void window.jupyterapp.commands.execute("pluralis-lab:open-run", { run });
    const frame = () => new Promise(done => requestAnimationFrame(done));
    const isPainted = () => {
        const view = document.querySelector(`#pluralis-lab-run-${run} .plab-run-view[data-seq]`);
        const curve = view?.querySelector('.plab-pane[data-pane="overview"] svg path[d^="M"]');
        return Boolean(curve && /\\d/.test(view.querySelector(".plab-figure-value")?.textContent ?? ""));
    };
    while (!isPainted() && performance.now() - begun < 120000) await frame();
    await frame();
    return isPainted() ? performance.now() - begun : -1;
}"""

COUNT_UPDATES = """run => {
    const view = document.querySelector(`#pluralis-lab-run-${run} .plab-run-view`);
    window.plabUpdates = 0;
    window.plabLongest = 0;
    new MutationObserver(() => { window.plabUpdates += 1; }).observe(view, { attributes: true, attributeFilter: ["data-seq"] });
    new PerformanceObserver(list => {
        for (const entry of list.getEntries()) window.plabLongest = Math.max(window.plabLongest, entry.duration);
    }).observe({ type: "longtask" });
}"""


def run(*, quick: bool) -> list[Result]:
    """Measure; ``quick`` takes a tenth of the workers and events."""
    check_machine()
    workers, events = (QUICK_WORKERS, QUICK_EVENTS) if quick else (WORKERS, EVENTS)
    with recorded(workers, events) as recording, tempfile.TemporaryDirectory() as folder:
        say(f"{workers} workers, {events:,} events are written")
        server = LabServer(Path(folder), recording.directory.path.parent.parent)
        paints: list[float] = []
        with chromium() as browser:
            for number in range(PAINTS):
                try:
                    lab = LabPage(browser, server.start()).open()
                    if number == 0:
                        check_answer(server, recording)
                        server.stop()
                        server.start()  # cold again: this server has read nothing of the run
                        lab.open()
                    paints.append(first_paint(lab, recording))
                    if number == PAINTS - 1:
                        update = updates(lab, server, recording)
                    lab.close()
                finally:
                    server.stop()
        say(f"first paints {', '.join(f'{paint:.2f}' for paint in paints)} s; updates {update}")
        try:
            server.start()
            cpu, pictures_per_s = asyncio.run(with_viewers(server, recording))
        finally:
            server.stop()
        say(f"{NUM_VIEWERS} viewers: {cpu:.1f} % of a core, {pictures_per_s:.2f} pictures a second each")
        samplers = Samplers(recording.directory, NUM_VIEWERS)
        peer_cpu = peer(samplers, recording, pictures_per_s)
    case = f"{workers} workers, {events:,} events"
    peer_name = "a sampler (reader, fold, encoding) a viewer, for as many pictures"
    return [
        Result(
            "ui_load.first_paint",
            "s",
            1.5,
            statistics.median(paints),
            len(paints),
            peer=samplers.first_s,
            peer_name="all events read before anything is sent (server's part alone)",
            note=f"{case}, cold server, command to painted curve",
        ),
        Result(
            "ui_load.update",
            "ms",
            50.0,
            update["main_thread_ms"],
            WATCHES,
            note=f"main thread a picture, events at 4 Hz, {update['pictures_per_s']} pictures a second, "
            f"longest task {update['longest_task_ms'] or 'under 50'} ms, main thread busy {update['main_thread_percent']} %",
        ),
        Result(
            "ui_load.server_cpu",
            "% of a core",
            10.0,
            cpu,
            WATCHES,
            peer=peer_cpu,
            peer_name=peer_name,
            note=f"{NUM_VIEWERS} viewers, {WATCH_S:.0f} s each, events at 4 Hz, {pictures_per_s:.2f} pictures a second each",
        ),
    ]


def check_machine() -> None:
    """Exit with the remedy where the browser or the extension is missing."""
    if not Path(CHROMIUM).exists():
        raise SystemExit(f"ui_load needs {CHROMIUM}: apt-get install chromium fonts-dejavu-core")
    if not (Path(sys.prefix) / "share/jupyter/labextensions/pluralis-lab/package.json").is_file():
        raise SystemExit("ui_load needs the JupyterLab extension in this environment: make ui")


def say(text: str) -> None:
    """Tell how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def recorded(workers: int, events: int) -> Iterator[RecordedRun]:
    """A home with the recorded run; its path is short, as a socket's must be."""
    home = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    recording = RecordedRun(home, workers=workers, events=events)
    try:
        yield recording
    finally:
        recording.close()
        shutil.rmtree(home)


def check_answer(server: LabServer, recording: RecordedRun) -> None:
    """Compare the picture with what was written; an AssertionError names the figure that differs."""
    totals, deadline = recording.totals, time.monotonic() + 180
    while True:
        reply = server.ask("GET", f"runs/{recording.directory.id}/picture?points=240")
        if reply["picture"] and reply["picture"]["seq"] == totals.events:
            break
        assert time.monotonic() < deadline, f"the server has read to {reply['seq']} of {totals.events}"
        time.sleep(0.2)  # a poll, as the fall-back without a socket makes
    picture: dict[str, Any] = reply["picture"]
    shown = {one["name"]: one for one in picture["workers"]}
    counts = {name: picture[name] for name in ("rounds_done", "epochs_closed", "live_workers")}
    assert counts == {"rounds_done": totals.rounds, "epochs_closed": totals.epochs, "live_workers": len(totals.work)}
    assert set(shown) == set(totals.work)
    figures = {"tokens": (picture["tokens"], totals.tokens), "loss": (picture["loss"]["y"][-1], totals.loss)}
    for name, work in totals.work.items():
        figures[f"work of {name}"] = (shown[name]["work_flops"], work)
        figures[f"bytes of {name}"] = (shown[name]["bytes_out"], totals.bytes_out[name])
    for name, (sent, written) in figures.items():
        assert abs(sent - written) <= ROUNDED * written, f"{name}: the picture says {sent}, the events {written}"
    say("the picture's totals are those of the events")


def first_paint(lab: LabPage, recording: RecordedRun) -> float:
    """Return the seconds from the command to the painted main view, on a server that has not read the run yet."""
    took_ms = lab.page.evaluate(OPEN_AND_TIME, recording.directory.id)
    assert took_ms > 0, "nothing was painted within two minutes"
    return float(took_ms) / 1000


def updates(lab: LabPage, server: LabServer, recording: RecordedRun) -> dict[str, float]:
    """Append events at 4 Hz and return what a picture costs the page's main thread, all of it: parsing, drawing, layout."""
    run_id = recording.directory.id
    lab.page.wait_for_function(
        "([run, seq]) => Number(document.querySelector(`#pluralis-lab-run-${run} .plab-run-view`).dataset.seq) >= seq",
        arg=[run_id, recording.totals.events],
        timeout=180_000,
    )
    devtools = lab.context.new_cdp_session(lab.page)
    devtools.send("Performance.enable")
    lab.page.evaluate(COUNT_UPDATES, run_id)

    def busy_s() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")

    ticks, drawn_before = 0, 0
    a_picture, rates, shares = [], [], []
    for _ in range(WATCHES):
        before, begun, first = busy_s(), time.monotonic(), ticks
        while time.monotonic() - begun < WATCH_S:
            recording.add_quarter(ticks % 4)
            ticks += 1
            lab.page.wait_for_timeout(max(0.0, 1000 * (begun + (ticks - first) * INTERVAL_S - time.monotonic())))
        took, busy = time.monotonic() - begun, busy_s() - before
        drawn_now, longest = lab.page.evaluate("[window.plabUpdates, window.plabLongest]")
        drawn, drawn_before = drawn_now - drawn_before, drawn_now
        assert drawn > 0, "the view drew nothing while events came"
        a_picture.append(1000 * busy / drawn)
        rates.append(drawn / took)
        shares.append(100 * busy / took)
    shown = lab.page.locator(f"#pluralis-lab-run-{run_id} .plab-rounds").inner_text()
    assert abs(int(shown.split()[0]) - recording.totals.rounds) <= 3, f"{shown}, but {recording.totals.rounds} rounds are written"
    return {
        "main_thread_ms": round(statistics.median(a_picture), 1),
        "pictures_per_s": round(statistics.median(rates), 2),
        "longest_task_ms": round(float(longest), 1),
        "main_thread_percent": round(statistics.median(shares), 1),
    }


async def with_viewers(server: LabServer, recording: RecordedRun) -> tuple[float, float]:
    """Return (percent of a core that the server takes, pictures a second and viewer) while events come at 4 Hz: medians."""
    assert server.process is not None
    viewers = Viewers(server, recording.directory.id, NUM_VIEWERS)
    await viewers.start()
    process = psutil.Process(server.process.pid)

    def used_s() -> float:
        every = [process, *process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in every)

    ticks = 0
    cpu, rates = [], []
    for _ in range(WATCHES):
        before, seen, begun, first = used_s(), viewers.pictures, time.monotonic(), ticks
        while time.monotonic() - begun < WATCH_S:
            recording.add_quarter(ticks % 4)
            ticks += 1
            await asyncio.sleep(max(0.0, begun + (ticks - first) * INTERVAL_S - time.monotonic()))
        took = time.monotonic() - begun
        cpu.append(100 * (used_s() - before) / took)
        rates.append((viewers.pictures - seen) / took / NUM_VIEWERS)
    await viewers.stop()
    return statistics.median(cpu), statistics.median(rates)


def peer(samplers: Samplers, recording: RecordedRun, pictures_per_s: float) -> float:
    """Return the percent of a core that a sampler a viewer takes for as many pictures, from the processor time of some."""
    quarters = max(1, round(1 / (pictures_per_s * INTERVAL_S)))
    samplers.sample()
    used: list[float] = []
    tick = 0
    for _ in range(PEER_ROUNDS):
        for _ in range(quarters):
            recording.add_quarter(tick % 4)
            tick += 1
        before = time.process_time()
        samplers.sample()
        used.append(time.process_time() - before)
    samplers.close()
    return 100 * statistics.median(used) * pictures_per_s
