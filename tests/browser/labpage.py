"""A page of JupyterLab in Debian's Chromium, and the few things that tests do in it again and again."""

import itertools
import time
from dataclasses import dataclass
from typing import Any

from tests.browser.labserver import LabServer

VIEWPORT = {"width": 1400, "height": 900}
WAIT_MS = 60_000
"""Generous: the machine may be busy with the run that is looked at."""


@dataclass(frozen=True)
class Complaint:
    """What the console said: an error or warning with its place, or an exception nobody caught."""

    kind: str
    text: str
    place: str

    @property
    def is_ours(self) -> bool:
        words = f"{self.text} {self.place}".lower()
        return "plab" in words or "pluralis" in words

    @property
    def is_of_the_network(self) -> bool:
        return "net::ERR_" in self.text or "WebSocket connection to" in self.text or "Failed to load resource" in self.text


class LabPage:
    """One page on a server."""

    def __init__(self, browser: Any, server: LabServer, **context: Any) -> None:
        self.server = server
        self.context = browser.new_context(**{"viewport": VIEWPORT, "color_scheme": "light", **context})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints: list[Complaint] = []
        self.page.on("console", lambda message: self._heard(message.type, message.text, message.location.get("url", "")))
        self.page.on("pageerror", lambda error: self._heard("exception", f"{error}\n{error.stack}", ""))
        # Nothing of ours opens one: it would be a script out of an event's text.
        self.page.on("dialog", self._refuse)

    def _heard(self, kind: str, text: str, place: str) -> None:
        if kind in ("error", "exception"):
            self.complaints.append(Complaint(kind, text, place))

    def _refuse(self, dialog: Any) -> None:
        self._heard("exception", f"pluralis: dialog {dialog.message}", "")
        dialog.dismiss()

    def open(self, path: str = "lab?reset") -> "LabPage":
        """Go to `path` below the base URL and wait until the application has started."""
        self.page.goto(f"{self.server.url}{path}{'&' if '?' in path else '?'}token={self.server.token}")
        self.ready()
        # A fresh layout opens the file browser and the launcher, a moment later: not in the place of what a test opens.
        if "reset" in path:
            self.page.locator(".jp-FileBrowser").wait_for()
        if path == "lab?reset":
            self.page.locator(".jp-Launcher").wait_for()
        return self

    def ready(self) -> None:
        """Wait until the application is there and the splash screen gone."""
        self.page.wait_for_function("window.jupyterapp !== undefined && document.querySelector('#main') !== null")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        self.page.evaluate("() => { void window.jupyterapp.restored.then(() => { window.plabRestored = true; }); }")
        self.page.wait_for_function("window.plabRestored")

    def command(self, command: str, **args: Any) -> None:
        """Start a command; does not wait for its end, which may need an answer to a dialog."""
        self.page.evaluate("([id, args]) => { void window.jupyterapp.commands.execute(id, args); }", [command, args])

    def done(self, command: str, **args: Any) -> None:
        """Execute a command and wait until it has ended; one that asks something first is for `command`."""
        outcome = self.page.evaluate(
            """([id, args, wait]) => Promise.race([
                window.jupyterapp.commands.execute(id, args).then(() => ""),
                new Promise(done => setTimeout(() => done(`${id} has not ended after ${wait} ms`), wait)),
            ])""",
            [command, args, WAIT_MS],
        )
        assert outcome == "", outcome

    def theme(self, name: str) -> None:
        """Change JupyterLab's theme, "JupyterLab Dark" for instance, and wait until it is painted."""
        self.done("apputils:change-theme", theme=name)
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)

    def panel(self) -> Any:
        """Show the side panel."""
        self.done("pluralis-lab:show-panel")
        panel = self.page.locator("#pluralis-lab-panel")
        panel.wait_for()
        return panel

    def line(self, run: str) -> Any:
        """The line of a run in the side panel."""
        return self.page.locator(f'.plab-line-item[data-run="{run}"]')

    def open_run(self, run: str) -> Any:
        """Open the main view of a run and wait for its first picture."""
        self.done("pluralis-lab:open-run", run=run)
        return self.run_view(run)

    def run_view(self, run: str) -> Any:
        """The main view of a run, once it has drawn a picture."""
        self.page.locator(f"#pluralis-lab-run-{run} .plab-run-view[data-seq]").wait_for()
        return self.page.locator(f"#pluralis-lab-run-{run} .plab-run-view")

    def pane(self, view: Any, title: str) -> Any:
        """Show a pane by its tab; returns the pane, drawn."""
        view.locator(".lm-TabBar-tab", has_text=title).first.click()
        pane = view.locator(f'.plab-pane[data-pane="{title.lower()}"][data-seq]')
        pane.wait_for()
        return pane

    def drag(self, what: Any, where: Any, *, shown: str) -> None:
        """Drag `what` to the middle of `where`, which has to say that it would take it; `shown`: what goes along under the mouse.

        The mouse goes on until then, as a hand does: what it rests on may still be laid out, and only moves are noticed.
        """
        what.hover()
        self.page.mouse.down()
        taken = where.and_(self.page.locator(".jp-mod-dropTarget"))
        begun = time.monotonic()
        for nudge in itertools.cycle((0, 2)):
            box = where.bounding_box()
            self.page.mouse.move(box["x"] + 80, box["y"] + box["height"] / 2 + nudge, steps=8)
            self.page.locator(shown).wait_for()
            if taken.count():
                break
            assert time.monotonic() < begun + WAIT_MS / 1000, f"{where} takes nothing"
        self.page.mouse.up()

    def answer(self, accept: str) -> str:
        """Answer the open dialog with the button that says `accept`; returns what the dialog said."""
        dialog = self.page.locator(".jp-Dialog-content")
        text = str(dialog.inner_text())
        # By what it shows: JupyterLab's own buttons have longer names for screen readers.
        dialog.locator("button.jp-Dialog-button").filter(has=self.page.get_by_text(accept, exact=True)).click()
        dialog.wait_for(state="detached")
        return text

    def moves(self, selector: str, attribute: str = "data-seq") -> None:
        """Wait until the number in `attribute` of the first visible `selector` grows twice."""
        self.page.wait_for_function(
            """([selector, attribute]) => {
                const node = [...document.querySelectorAll(selector)].find(one => one.checkVisibility());
                const value = Number(node?.getAttribute(attribute));
                const seen = (window.plabSeen ??= {});
                const key = selector + attribute;
                if (node && value > 0) seen[key] = [...new Set([...(seen[key] ?? []), value])];
                return (seen[key] ?? []).length >= 3;
            }""",
            arg=[selector, attribute],
        )
        self.page.evaluate("() => { delete window.plabSeen; }")

    def ours(self, *, network: bool = True) -> list[Complaint]:
        """What the console said about us; `network=False` leaves out what a server that is down brings about."""
        return [one for one in self.complaints if one.is_ours and (network or not one.is_of_the_network)]

    def close(self) -> None:
        self.context.close()
