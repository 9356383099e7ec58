"""What a cell shows while a long run is read: how far it is; then, in the same place, the run."""

from __future__ import annotations

from typing import Any

from pluralis_lab.markup import paragraph


class ReadingNote:
    """A line in the running cell's output that is replaced by what it announces. Without a `tell` there is no line."""

    def __init__(self) -> None:
        self._handle: Any = None

    def tell(self, done: int, total: int) -> None:
        """Say that `done` of `total` events are read."""
        text = f"reading the run: {done:,} of {total:,} events ({done / total:.0%})"
        self._show({"text/plain": text, "text/html": paragraph(text)})

    def interrupted(self) -> None:
        """Say that the reading was ended, if it had been announced."""
        if self._handle is not None:
            text = "reading the run was interrupted; run the cell again to see it"
            self._show({"text/plain": text, "text/html": paragraph(text)})

    def replace(self, bundle: dict[str, Any]) -> None:
        """Show `bundle` in the line's place."""
        self._show(bundle)

    def _show(self, bundle: dict[str, Any]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)
