"""The one mime bundle of an output cell: the stored record, and beside it the live widget where a kernel can feed it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pluralis_lab.errors import PluralisError
from pluralis_lab.markup import paragraph
from pluralis_lab.views.card import run_card
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.record import record, text_record

if TYPE_CHECKING:
    from pluralis_lab.store import RunDirectory
    from pluralis_lab.views.widget import RunWidget

WIDGET_MIME_TYPE = "application/vnd.jupyter.widget-view+json"
MAX_EVENTS_SHOWN = 100_000


def mime_bundle(run_dir: RunDirectory, widget: RunWidget | None = None) -> dict[str, Any]:
    """Return the bundle of `run_dir` as it is now: our JSON, PNG, HTML and text, and the view of `widget` if given."""
    bundle = record(RunPicture.of(run_dir)) if widget is None else widget.record()
    if widget is not None:
        bundle[WIDGET_MIME_TYPE] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return bundle


def run_bundle(run_dir: RunDirectory, name: str) -> dict[str, Any]:
    """Return what a cell shows that ends in a run: its record. Never raises; `name` is the run in a few words.

    A run of very many events is shown as a card: a cell's last line must not take seconds. Outside a kernel there is no
    image, which a terminal could not show.
    """
    try:
        if run_dir.last_seq() > MAX_EVENTS_SHOWN:
            hint = f"{run_dir.last_seq():,} events: run.watch() draws them"
            return {"text/plain": f"{name} ({hint})", "text/html": run_card(run_dir) + paragraph(hint)}
        if not in_kernel():
            return {"text/plain": text_record(RunPicture.of(run_dir))}
        return mime_bundle(run_dir)
    except (PluralisError, OSError, LookupError, TypeError, ValueError) as error:
        why = "" if name.endswith("deleted>") else f": {' '.join(str(error).split())}"
        return {"text/plain": name + why, "text/html": paragraph(name + why)}


def in_kernel() -> bool:
    """Tell whether this process is a Jupyter kernel; loads nothing to find out."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def display_bundle(bundle: dict[str, Any]) -> None:
    """Show `bundle` in the output of the cell that runs; outside a kernel its plain text is printed."""
    if not in_kernel():
        print(bundle["text/plain"])
        return
    from IPython.display import display

    display(bundle, raw=True)  # type: ignore[no-untyped-call]


def display_watch(run_dir: RunDirectory, on_stop: Callable[[], object] | None = None, headless: bool = False) -> RunWidget | None:
    """Show a run in the output cell and return its live widget, or None.

    `headless` (papermill) stores the record alone: nobody is there to see a widget, and its state would only grow the
    notebook. Outside a kernel it is the same. `on_stop` is called, once at a time and in its own thread, when the reader
    confirms *Stop*.
    """
    if headless or not in_kernel():
        display_bundle(mime_bundle(run_dir))
        return None
    from pluralis_lab.views.reading_note import ReadingNote
    from pluralis_lab.views.widget import RunWidget

    note = ReadingNote()
    try:
        widget = RunWidget(run_dir, on_stop=on_stop, on_reading=note.tell)
    except KeyboardInterrupt:
        note.interrupted()
        raise
    try:
        note.replace(mime_bundle(run_dir, widget))
        widget.start()
    except BaseException:  # an interrupt too: nobody sees a widget that was not shown, but its thread would go on
        widget.close()
        raise
    return widget
