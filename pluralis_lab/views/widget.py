"""The live view of a run in an output cell: an anywidget that a thread feeds from the store."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets as t

from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import compact_payload
from pluralis_lab.views.tail import Tail

if TYPE_CHECKING:
    from pluralis_lab.store import RunDirectory

_MODULES = ("charts.js", "view.js", "watch.js")
_IMPORT = re.compile(r"^import\s[^;]*?from\s+\"\./[\w.]+\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)


@cache
def module_source() -> str:
    """Return the live view as one self-contained ES module: our three files joined, their links to each other removed.

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

    Parameters
    ----------
    run_dir : the run to follow
    on_stop : called without arguments when the reader confirms *Stop*; once at a time, in a thread of its own, so that it
        may take as long as it likes; what it raises is shown beside the button. Without it there is no button.
    """

    _esm = t.Unicode(module_source()).tag(sync=True)
    _css = t.Unicode(style_source()).tag(sync=True)
    picture = t.Dict().tag(sync=True)
    pulse = t.Dict().tag(sync=True)
    can_stop = t.Bool(False).tag(sync=True)
    stop_state = t.Unicode("idle").tag(sync=True)

    def __init__(self, run_dir: RunDirectory, *, on_stop: Callable[[], object] | None = None) -> None:
        picture = RunPicture.of(run_dir)
        super().__init__(picture=compact_payload(picture), pulse=_pulse(picture, None, ""), can_stop=on_stop is not None)
        self._on_stop = on_stop
        self._stopping = threading.Lock()
        self._tail = Tail(run_dir, self._show)
        self.on_msg(self._on_message)
        _hear_the_page_while_a_cell_runs(self.comm)

    def start(self) -> None:
        """Start to follow the run."""
        self._tail.start()

    def close(self) -> None:
        """End the thread and the widget; the stored record stays in the notebook."""
        if hasattr(self, "_tail"):
            self._tail.close()
        super().close()

    @property
    def is_following(self) -> bool:
        """Whether the thread still waits for news of the run."""
        return self._tail.is_alive

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread has ended, at the latest for `timeout_s` seconds; returns whether it has."""
        return self._tail.join(timeout_s)

    def _show(self, picture: RunPicture, heard_at: float | None, problem: str) -> None:
        if self.comm is None:
            self._tail.close()
            return
        payload = compact_payload(picture)
        pulse = _pulse(picture, heard_at, problem)
        if payload["seq"] != self.picture.get("seq"):
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


def _pulse(picture: RunPicture, heard_at: float | None, problem: str) -> dict[str, Any]:
    """Return the sign of life: how long the run has been silent when this was sent, in seconds."""
    now = time.time()
    silent_s = picture.silent_s(now, heard_at)
    return {"sent": round(now, 2), "silent_s": None if silent_s is None else round(silent_s, 2), "problem": problem}
