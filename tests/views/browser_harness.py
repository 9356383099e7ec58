"""A page with a stand-in for the anywidget model, to look at the live view in a browser without Jupyter."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pluralis_lab.views.widget import module_source, style_source

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>harness</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="watch.css">
<style>%(theme)s body{margin:12px;background:var(--jp-layout-color1,Canvas)}</style></head>
<body%(body)s><div id="cell"></div><script type="module">
import widget from "./watch.js";
const state = await (await fetch("state.json")).json();
const handlers = {};
const model = {
  sent: [],
  get: (name) => state[name],
  on: (name, handler) => { (handlers[name] ??= []).push(handler); },
  off: (name, handler) => { handlers[name] = (handlers[name] ?? []).filter((one) => one !== handler); },
  send: (content) => model.sent.push(content),
  set(name, value) { state[name] = value; for (const handler of handlers[`change:${name}`] ?? []) handler(); },
};
window.model = model;
window.handlers = handlers;
// As JupyterLab does it: drawn first, put on the page afterwards.
const place = document.createElement("div");
window.destroy = widget.render({ model, el: place });
await new Promise((done) => setTimeout(done, 50));
document.getElementById("cell").append(place);
</script></body></html>
"""

# What JupyterLab 4.6 sets on its light and dark theme, as far as the view reads it.
THEMES = {
    "light": ":root{--jp-layout-color1:#fff;--jp-layout-color2:#eeeeee;--jp-ui-font-color1:rgba(0,0,0,.87);"
    "--jp-ui-font-color2:rgba(0,0,0,.54);--jp-border-color2:#e0e0e0;--jp-brand-color1:#1976d2}",
    "dark": ":root{--jp-layout-color1:#111;--jp-layout-color2:#212121;--jp-ui-font-color1:#fff;"
    "--jp-ui-font-color2:rgba(255,255,255,.7);--jp-border-color2:#616161;--jp-brand-color1:#2196f3}",
    "none": "",
}


def write_page(folder: Path, state: dict[str, Any], theme: str = "none") -> None:
    """Write the page, the widget's module and style, and the model's first `state` to `folder`."""
    body = "" if theme == "none" else f' data-jp-theme-light="{str(theme == "light").lower()}"'
    (folder / "index.html").write_text(_PAGE % {"theme": THEMES[theme], "body": body}, "utf-8")
    (folder / "watch.js").write_text(module_source(), "utf-8")
    (folder / "watch.css").write_text(style_source(), "utf-8")
    (folder / "state.json").write_text(json.dumps(state), "utf-8")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve `folder` on a free port of the loopback while the block runs; gives the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def browser_page(browser: Any, address: str, *, width: int = 980, dark: bool = False) -> Iterator[tuple[Any, list[str]]]:
    """Open `address` in a page of its own; gives it, and the list that console errors and exceptions are added to."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=1.5)
    try:
        page = context.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".plab[data-seq]")
        yield page, errors
    finally:
        context.close()
