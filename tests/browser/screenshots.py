"""Takes the pictures in docs/images: a real run, each pane and the panel, in light and dark.

Usage: ``python -m tests.browser.screenshots [FOLDER]`` (``make screenshots``); with Chromium and a built extension.
Takes about two minutes, because the run is trained while it is looked at.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import pluralis_lab as pl
from tests.browser.labpage import LabPage
from tests.browser.labserver import ROOT, LabServer
from tests.chromium import chromium
from tests.homes import shared_home

MOST_BYTES = 150_000
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
PANES = ("Overview", "Contributions", "Ownership", "Evidence", "Workers", "Topology")
SHOWN_ROUND = 150
VICTIM = "worker-4"
SIZE = {"width": 1280, "height": 800}


def spec() -> pl.RunSpec:
    """The run that is shown: three stages of two replicas, small enough to be trained while one waits."""
    return pl.RunSpec(
        model=pl.GPT(n_layer=6, n_head=4, d_model=64, context=64),
        stages=3,
        replicas=2,
        boundary=pl.Subspace(rank=16),
        steps=2_000,
        batch_size=8,
        micro_batches=2,
        epoch_rounds=20,
        eval_every=20,
        checkpoint_every=20,
    )


def save(image: bytes, file: Path) -> int:
    """Write a picture, with fewer colours if it would be over the limit; return its size in bytes."""
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB")
    for colours in (None, 256, 128, 64):
        drawn = picture if colours is None else picture.quantize(colours, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        drawn.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    file.write_bytes(buffer.getvalue())
    return buffer.tell()


def set_up(lab: LabPage, run: pl.Run) -> None:
    """Bring the run to where its panes have something to tell: a death, a token, a payment."""
    run.wait(round=SHOWN_ROUND // 2, timeout_s=300)
    run.kill(VICTIM)
    run.wait(round=SHOWN_ROUND, timeout_s=300)
    run.tokenize().pay(ether="1.5", account="lab-a")
    run.token.claim("lab-b")
    lab.panel()
    lab.line(run.id).click()


def one_pane(lab: LabPage, run: pl.Run, title: str) -> Any:
    """Show one pane as large as the page allows; returns what is photographed."""
    view = lab.open_run(run.id)
    pane = lab.pane(view, title)
    if title == "Evidence":
        button = pane.get_by_role("button", name="Audit").first
        if button.is_visible():
            button.click()
            lab.page.wait_for_function("node => !node.isConnected || !node.disabled", arg=button.element_handle())
    if title == "Ownership":
        pane.locator(".plab-figure", has_text="claimable").filter(has_text="ETH").wait_for()
    if title == "Contributions":
        pane.get_by_label("Receipts of worker").select_option(VICTIM)
        pane.locator(".plab-section .plab-table tbody tr").first.wait_for()
    if title == "Workers" and not view.locator(".plab-log-tail").is_visible():
        pane.locator(f'.plab-grid-row[data-worker="{VICTIM}"]').click()
        pane.locator(".plab-log", has_text="INFO").wait_for()
    return view


def divide(lab: LabPage, run: str, share: float) -> None:
    """Give the upper panes this share of the height, as one does by dragging the line above the lower ones."""
    handle = lab.page.locator(
        f"#pluralis-lab-run-{run} .plab-dock > .lm-DockPanel-handle:not(.lm-mod-hidden)"
    ).first.bounding_box()
    dock = lab.page.locator(f"#pluralis-lab-run-{run} .plab-dock").bounding_box()
    x = handle["x"] + handle["width"] / 2
    lab.page.mouse.move(x, handle["y"] + handle["height"] / 2)
    lab.page.mouse.down()
    lab.page.mouse.move(x, dock["y"] + share * dock["height"], steps=4)
    lab.page.mouse.up()


def rest(lab: LabPage) -> None:
    """Take the mouse and the keyboard off everything that looks different under them."""
    lab.page.evaluate("() => { document.activeElement?.blur(); }")
    lab.page.mouse.move(SIZE["width"] / 2, SIZE["height"] - 6)


def settled(lab: LabPage) -> None:
    """Wait until what was asked for has been painted: two pictures more, two frames more."""
    rest(lab)
    lab.moves(".plab-run-view")
    lab.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def take(folder: Path) -> list[tuple[str, int]]:
    """Take all pictures; return their names and sizes in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[tuple[str, int]] = []
    with shared_home() as home, tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        server = LabServer(Path(scratch), home)
        run = pl.launch(spec(), account="lab-a", participants=["lab-a", "lab-b", "lab-c"], lifetime="detached")
        try:
            pl.simulate(spec().model_copy(update={"steps": 40}), account="lab-b").wait(timeout_s=300)
            lab = LabPage(browser, server.start(), viewport=SIZE).open()
            set_up(lab, run)
            for theme, name in THEMES.items():
                lab.theme(name)

                def shoot(what: str, node: Any, theme: str = theme) -> None:
                    file = folder / f"{what}-{theme}.png"
                    taken.append((file.name, save(node.screenshot(), file)))

                if theme == "light":  # before any pane is given more room than it has by itself
                    view = lab.open_run(run.id)
                    lab.pane(view, "Topology")
                    settled(lab)
                    shoot("lab", lab.page)
                for title in PANES:
                    view = one_pane(lab, run, title)
                    divide(lab, run.id, 0.2 if title in ("Workers", "Topology") else 0.9)
                    settled(lab)
                    shoot(title.lower(), view)
                if theme == "dark":
                    divide(lab, run.id, 0.58)
                    lab.pane(lab.run_view(run.id), "Overview")
                    settled(lab)
                    shoot("lab", lab.page)
                lab.panel()
                rest(lab)
                shoot("panel", lab.page.locator("#pluralis-lab-panel"))
                lab.done("pluralis-lab:new-run")
                lab.page.locator(".plab-estimate dt").first.wait_for()
                shoot("new-run", lab.page.locator(".plab-form"))
                others = [one["id"] for one in server.ask("GET", "runs")["runs"]]
                lab.done("pluralis-lab:compare-runs", runs=others[:2])
                lab.page.locator(".plab-compare svg").first.wait_for()
                shoot("compare", lab.page.locator(".plab-compare"))
            lab.close()
        finally:
            run.stop()
            server.stop()
    return taken


def main() -> int:
    """Take the pictures and list them; return 1 when one is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "images")
    taken = take(parser.parse_args().folder)
    for name, size in taken:
        print(f"{name:28} {size / 1000:6.0f} kB{'  too large' if size > MOST_BYTES else ''}")
    return int(any(size > MOST_BYTES for _, size in taken))


if __name__ == "__main__":
    sys.exit(main())
