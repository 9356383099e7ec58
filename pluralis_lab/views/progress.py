"""What `run.wait()` shows while it waits: one display in a notebook, a bar in a terminal, a few lines anywhere else."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from pluralis_lab.views.bundle import display_bundle, in_kernel
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.record import record, text_record
from pluralis_lab.views.units import format_duration, format_nats, format_tokens_per_s

if TYPE_CHECKING:
    from pluralis_lab.store import RunDirectory

Mode = Literal["notebook", "terminal", "lines"]
STEP = 0.1
MIN_GAP_S, MAX_GAP_S, UPDATE_GAP_S = 5.0, 30.0, 1.0


def progress_mode(headless: bool) -> Mode:
    """Return how to show progress here: `headless` (papermill, CI) always means a few lines."""
    if headless:
        return "lines"
    if in_kernel():
        return "notebook"
    return "terminal" if sys.stdout.isatty() else "lines"


def progress_text(picture: RunPicture) -> str:
    """Return where the run is in one line of text."""
    if picture.round is None or picture.is_over or picture.state == "serving":
        parts = [picture.headline]
        if picture.round is None:
            return picture.headline
    else:
        parts = [f"round {picture.rounds_done}/{picture.steps} ({100 * picture.rounds_done / picture.steps:.0f} %)"]
    parts.append(f"loss {format_nats(picture.loss.last)}")
    if picture.validation.last is not None:
        parts.append(f"validation {format_nats(picture.validation.last)}")
    parts.append(format_tokens_per_s(picture.tokens_per_s.mean(20)))
    if not picture.is_over:
        parts.append(f"{picture.num_live}/{len(picture.workers)} workers")
    parts.append(f"{format_duration(picture.elapsed_s)} elapsed")
    if picture.remaining_s:
        parts.append(f"{format_duration(picture.remaining_s)} left")
    return " · ".join(" ".join(part.split()) for part in parts)


class ProgressLine:
    """Progress of one run, from its events; use as a context manager and call `update` as often as you like.

    In a notebook one display changes at most once a second. In a terminal a bar moves. Elsewhere (papermill, pipes) a line
    is printed for every tenth of the run, but never within 5 s of the last, or after a silence of 30 s (which grows with the
    time the run has taken). Leaving the block shows the final record, unless an exception is on its way.

    Parameters
    ----------
    run_dir : the run
    headless : nobody watches (papermill, CI): lines
    mode : overrides what `progress_mode` finds
    stream : where lines and the terminal's bar go; standard output if None
    clock : seconds, monotonic

    Example::

        with ProgressLine(run_dir, headless=False) as line:
            while not line.update().is_over:
                changed.wait(0.5)
    """

    def __init__(
        self,
        run_dir: RunDirectory,
        *,
        headless: bool = False,
        mode: Mode | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        final: bool = True,
    ) -> None:
        self.run_dir = run_dir
        self._reader = run_dir.reader()
        self.mode: Mode = mode or progress_mode(headless)
        self.picture = RunPicture.of(run_dir, read=False)
        self._stream = stream
        self._clock = clock
        self._final = final
        self._started = clock()
        self._shown_at: float | None = None
        self._shown_share = 0.0
        self._shown_text = ""
        self._told_marks = 0
        self._handle: Any = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressLine:
        self.update()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(final=kind is None and self._final)

    def update(self) -> RunPicture:
        """Read what is new, show it if it is time to, and return the picture of the run so far."""
        self.picture.update(self._reader.read(since=self.picture.seq))
        {"notebook": self._update_notebook, "terminal": self._update_terminal, "lines": self._update_lines}[self.mode]()
        return self.picture

    def close(self, *, final: bool = True) -> None:
        """Show the last line and, with `final`, the stored record of the run."""
        self.picture.update(self._reader.read(since=self.picture.seq))
        if self.mode == "terminal":
            self._update_terminal()
            if self._bar is not None:
                self._bar.stop()
        elif self.mode == "notebook":
            self._update_notebook(force=True)
        else:
            self._print_line()
        if not final:
            return
        if in_kernel():
            display_bundle(record(self.picture))
        else:
            self._write(text_record(self.picture))

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(text + "\n")
        stream.flush()

    @property
    def _share(self) -> float:
        return self.picture.rounds_done / max(1, self.picture.steps)

    def _update_lines(self) -> None:
        now = self._clock()
        if self._shown_at is None:
            self._print_line()
            return
        silence = now - self._shown_at
        patience = max(MAX_GAP_S, (now - self._started) / 6)
        stepped = self._share - self._shown_share >= STEP - 1e-9 and silence >= MIN_GAP_S
        if stepped or silence >= patience:
            self._print_line()

    def _print_line(self) -> None:
        text = progress_text(self.picture)
        marks = [mark for mark in self.picture.marks if mark.kind != "reroute"]
        news = marks[self._told_marks :]
        if news:
            text += " · " + ", ".join(" ".join(mark.text.split()) for mark in news[:3])
            text += f" and {len(news) - 3} more" if len(news) > 3 else ""
        if text != self._shown_text:
            self._write(text)
        self._told_marks, self._shown_text = len(marks), text
        self._shown_at, self._shown_share = self._clock(), self._share

    def _update_notebook(self, force: bool = False) -> None:
        now = self._clock()
        if not force and self._shown_at is not None and now - self._shown_at < UPDATE_GAP_S:
            return
        from IPython.display import display

        text = progress_text(self.picture)
        bundle = {
            "text/plain": text,
            "text/html": f'<progress max="1" value="{self._share:.4f}" aria-label="rounds done" style="width:12em;'
            f'vertical-align:middle"></progress> <span role="status">{html.escape(text)}</span>',
        }
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        elif text != self._shown_text:
            self._handle.update(bundle, raw=True)
        self._shown_at, self._shown_text = now, text

    def _update_terminal(self) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            console = Console(file=self._stream) if self._stream is not None else Console()
            columns = (BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=console, refresh_per_second=4, auto_refresh=False)
            self._task = self._bar.add_task(progress_text(self.picture), total=self.picture.steps)
            self._bar.start()
        description = progress_text(self.picture)
        self._bar.update(self._task, completed=self.picture.rounds_done, description=description, refresh=True)
