"""The figure that `run.figure(...)` returns: plotly's own, which also leaves an image in the notebook.

Executed by papermill, plotly stores its JSON alone, and exported HTML then shows nothing (GitHub, too). The image beside it is
what they show; JupyterLab goes on to show the interactive figure.
"""

from __future__ import annotations

import base64
from typing import Any

import plotly.graph_objects as go

from pluralis_lab.views.bundle import in_kernel
from pluralis_lab.views.still import still


class RunFigure(go.Figure):  # type: ignore[misc]
    """A plotly figure of a run; everything that plotly offers works on it."""

    def _repr_mimebundle_(self, *given: Any, **options: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = dict(super()._repr_mimebundle_(*given, **options) or {})
        bundle.setdefault("image/png", base64.b64encode(still(self)).decode())
        bundle.setdefault("text/plain", repr(self))
        return bundle

    def _ipython_display_(self) -> None:
        if not in_kernel():
            super()._ipython_display_()
            return
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        title = (self.layout.title.text or "").partition("<br>")[0]
        return f"<Figure {title}: {len(self.data)} traces>"
