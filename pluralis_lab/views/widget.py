"""The live view of a run in an output cell: an anywidget that a thread feeds from the store."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets as t

from pluralis_lab.views.feed import OnReading, RunFeed
from pluralis_lab.views.record import record

if TYPE_CHECKING:
    from pluralis_lab.store import RunDirectory

_CHARTS = ("dom.js", "numbers.js", "scales.js", "chartframe.js", "linechart.js", "sparkline.js")
_MODULES = (*_CHARTS, "states.js", "topology.js", "owners.js", "workers.js", "crowd.js", "view.js", "watch.js")
_IMPORT = re.compile(r"^import\s[^;]*?from\s+\"\./[\w.]+\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)


@cache
def module_source() -> str:
    """Return the live view as one self-contained ES module: our files joined, their links to each other removed.

    The files are proper modules, so that the JupyterLab extension can import the same view and charts unchanged.
    """
    parts = []
    for name in _MODULES:
        source = (files("pluralis_lab.views") / "static" / name).read_text("utf-8")
        parts.append(_EXPORT.sub("", _IMPORT.sub("", source)))
    return "\n".join(parts)


@cache
def style_source() -> str:
    """Return the style sheet of the live view."""
    return (files("pluralis_lab.views") / "static" / "watch.css").read_text("utf-8")


class RunWidget(anywidget.AnyWidget):
    """The live view of one run; made by `display_watch`, closed by `close()` or by the end of the run.

    All views of a run in one process share one reader (`RunFeed`).

    Parameters
    ----------
    run_dir : the run to follow
    on_stop : called without arguments when the reader confirms *Stop*; once at a time, in a thread of its own, so that it
        may take as long as it likes; what it raises is shown beside the button. Without it there is no button.
    on_reading : called with (events read, events there) while a long run is read, which takes seconds; an interrupt ends it
    """

    _esm = t.Unicode(module_source()).tag(sync=True)
    _css = t.Unicode(style_source()).tag(sync=True)
    picture = t.Dict().tag(sync=True)
    pulse = t.Dict().tag(sync=True)
    can_stop = t.Bool(False).tag(sync=True)
    stop_state = t.Unicode("idle").tag(sync=True)

    def __init__(
        self, run_dir: RunDirectory, *, on_stop: Callable[[], object] | None = None, on_reading: OnReading | None = None
    ) -> None:
        self._feed = RunFeed.shared(run_dir)
        self._is_open = False  # ipywidgets closes also what was never whole: the feed must be given back once
        try:
            picture, pulse = self._feed.now(on_reading)
        except BaseException:
            self._feed.release()
            raise
        self._is_open = True
        super().__init__(picture=picture, pulse=pulse, can_stop=on_stop is not None)
        self._on_stop = on_stop
        self._stopping = threading.Lock()
        self.on_msg(self._on_message)
        _hear_the_page_while_a_cell_runs(self.comm)

    def start(self) -> None:
        """Start to show what is new of the run."""
        self._feed.listen(self._show)

    def close(self) -> None:
        """End the widget, and the thread when no other view of the run needs it; the stored record stays in the notebook."""
        if getattr(self, "_is_open", False):
            self._is_open = False
            self._feed.leave(self._show)
            self._feed.release()
        super().close()

    @property
    def is_following(self) -> bool:
        """Whether news of the run still comes to this view."""
        return self._is_open and self._feed.is_alive

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing follows the run for this view, at the latest for `timeout_s` seconds; returns whether that is so."""
        if not self._is_open and self._feed.num_users:
            return True
        return self._feed.join(timeout_s)

    def record(self) -> dict[str, Any]:
        """Return the stored record of the run as this view's feed knows it now."""
        return self._feed.ask(record)

    def _show(self, payload: dict[str, Any], pulse: dict[str, Any]) -> None:
        if self.comm is None:
            self.close()
        elif payload["seq"] != self.picture.get("seq"):
            with self.hold_sync():
                self.picture, self.pulse = payload, pulse
        else:
            self.pulse = pulse

    def _on_message(self, widget: object, content: Any, buffers: object) -> None:
        """Handle a message of the page; anything but our one command is ignored."""
        if not isinstance(content, dict) or content.get("command") != "stop" or self._on_stop is None:
            return
        if self._stopping.acquire(blocking=False):
            self.stop_state = "stopping"
            threading.Thread(target=self._stop, name="pluralis-stop", daemon=True).start()

    def _stop(self) -> None:
        try:
            if self._on_stop is not None:
                self._on_stop()
            self.stop_state = "stopped"
        except Exception as error:
            # The page is the only place where somebody waits for this: there it is told.
            self.stop_state = f"failed: {type(error).__name__}: {error}"[:400]
        finally:
            self._stopping.release()


def _hear_the_page_while_a_cell_runs(comm: Any) -> None:
    """Let the page's messages come in by the thread that JupyterLab chose for them, also while a cell runs.

    ipykernel 7.4 sends them to the loop from which the kernel last wrote to this comm, which is the main one and waits for
    the running cell: *Stop* would be heard only after `run.wait()`. Kernels without that detour have nothing to change.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default
