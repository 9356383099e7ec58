"""A plotly figure as a PNG, drawn without a browser: for what cannot run plotly's script, as exported HTML and GitHub cannot.

It draws what our own figures are made of: lines, markers with text, stacked bars, heat maps, vertical marks and notes. A trace
of another kind that somebody added is left to the interactive figure, and the image says so.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI, WIDTH_IN = 144, 8.0
_MAX_NAME = 36
_INK, _RULE = "#4a5058", "#d5d9de"
_DASHES = {"dash": "--", "dot": ":", "dashdot": "-."}
_SYMBOLS = {"circle": "o", "x": "X"}


def still(figure: Any) -> bytes:
    """Return `figure` (plotly) as a PNG on white, 1152 pixels wide."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = figure.layout
    style: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "text.color": _INK,
        "text.parse_math": False,
    }
    with mpl.rc_context(style):
        canvas = Figure(figsize=(WIDTH_IN, (layout.height or 440) / 110), dpi=DPI, facecolor="white", layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        title, _, rest = (layout.title.text or "").partition("<br>")
        left_out = _traces(axes, figure)
        _axes(axes, layout)
        _marks(axes, layout)
        notes = [_plain(rest), f"{left_out} more only in the interactive figure" if left_out else ""]
        canvas.suptitle(_plain(title) + "\n" + " · ".join(filter(None, notes)), x=0.01, ha="left", fontsize=9)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="png")
    return buffer.getvalue()


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", text)).strip()


def _name(text: str) -> str:
    """Return a name in the room that a still image has for one."""
    plain = _plain(text)
    return plain if len(plain) <= _MAX_NAME else f"{plain[: _MAX_NAME - 1]}…"


def _traces(axes: Axes, figure: Any) -> int:
    """Draw what is known, with a legend where there is one; returns how many traces are of another kind."""
    stacked: dict[Any, float] = {}
    left_out = 0
    for trace in figure.data:
        if trace.type == "scatter":
            _scatter(axes, trace)
        elif trace.type == "bar":
            _bars(axes, trace, stacked, figure.layout.bargap or 0.0)
        elif trace.type == "heatmap":
            _heatmap(axes, trace)
        else:
            left_out += 1
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1 and figure.layout.showlegend is not False:
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    return left_out


def _scatter(axes: Axes, trace: Any) -> None:
    mode = trace.mode or "lines"
    x, y = np.asarray(trace.x), np.asarray(trace.y)
    label = _name(trace.name) if trace.name else None
    if "lines" in mode:
        if trace.line.shape == "spline" and len(x) == 3:
            x, y = _bent(x), _bent(y)
        axes.plot(
            x,
            y,
            color=trace.line.color,
            linewidth=trace.line.width or 1.5,
            linestyle=_DASHES.get(trace.line.dash, "-"),
            alpha=trace.opacity,
            marker="o" if "markers" in mode else None,
            markersize=3,
            label=label,
        )
        return
    marker = trace.marker
    if marker.opacity == 0:
        return  # it only carries a hover text
    colours = _each(marker.color, len(x))
    symbols = _each(marker.symbol, len(x))
    for i in range(len(x)):
        sign = _SYMBOLS.get(symbols[i] or "circle", "o")
        axes.plot([x[i]], [y[i]], marker=sign, color=colours[i], markersize=(marker.size or 8) / 2, linestyle="none")
    if "text" in mode:
        for i, place in enumerate(_each(trace.textposition, len(x))):
            up = str(place).startswith("top")
            axes.annotate(
                _name(trace.text[i]),
                (x[i], y[i]),
                (0, 9 if up else -9),
                textcoords="offset points",
                ha="center",
                va="bottom" if up else "top",
            )


def _each(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value] * count


def _bent(points: Any) -> Any:
    """Return a smooth curve through three points."""
    return np.polyval(np.polyfit([0.0, 0.5, 1.0], points.astype(float), 2), np.linspace(0, 1, 24))


def _bars(axes: Axes, trace: Any, stacked: dict[Any, float], gap: float) -> None:
    x, y = list(trace.x), [float(value) for value in trace.y]
    steps = np.diff(sorted(set(x) | set(stacked)))
    width = (float(min(steps)) if len(steps) else 1.0) * (1 - gap)
    bottom = [stacked.get(at, 0.0) for at in x]
    axes.bar(x, y, width, bottom, color=trace.marker.color, label=_name(trace.name or ""), linewidth=0)
    for at, value in zip(x, y, strict=True):
        stacked[at] = stacked.get(at, 0.0) + value


def _heatmap(axes: Axes, trace: Any) -> None:
    values = np.array([[np.nan if value is None else value for value in row] for row in trace.z], dtype=float)
    x = [float(at) for at in trace.x]
    half = (x[1] - x[0]) / 2 if len(x) > 1 else 0.5
    image = axes.imshow(
        values,
        cmap="cividis",
        vmin=trace.zmin,
        vmax=trace.zmax,
        aspect="auto",
        interpolation="nearest",
        extent=(x[0] - half, x[-1] + half, len(values) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(values)), [_name(str(name)) for name in trace.y])
    axes.get_figure(root=True).colorbar(image, ax=axes, label=trace.colorbar.title.text, pad=0.02)  # type: ignore[union-attr]


def _axes(axes: Axes, layout: Any) -> None:
    from matplotlib.ticker import EngFormatter

    for axis, given, is_x in ((axes.xaxis, layout.xaxis, True), (axes.yaxis, layout.yaxis, False)):
        axis.set_label_text(_plain(given.title.text or ""))
        if given.visible is False:
            axis.set_visible(False)
            axes.spines["bottom" if is_x else "left"].set_visible(False)
        if given.range:
            (axes.set_xlim if is_x else axes.set_ylim)(*given.range)
        if given.tickvals is not None:
            axis.set_ticks(list(given.tickvals), [_plain(str(text)) for text in given.ticktext or given.tickvals])
        if str(given.tickformat or "").endswith("%"):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        if given.exponentformat == "SI":
            axis.set_major_formatter(EngFormatter())
        if given.showline is False:
            axes.spines["bottom" if is_x else "left"].set_visible(False)
        if given.side == "top":
            axes.xaxis.tick_top()
        if given.showgrid is not False and given.visible is not False:
            axis.grid(True, color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _marks(axes: Axes, layout: Any) -> None:
    for shape in layout.shapes:
        if shape.type == "line" and shape.x0 == shape.x1:
            axes.axvline(shape.x0, color=shape.line.color, linewidth=0.8, linestyle=":")
    for said in layout.annotations:
        place = axes.get_xaxis_transform() if said.xref == "x" else axes.transAxes
        is_above = said.y is not None and said.y >= 1
        align = {"left": "left", "right": "right"}.get(said.xanchor or "center", "center")
        colour = said.font.color or _INK
        axes.text(
            said.x,
            said.y,
            _name(said.text),
            transform=place,
            ha=align,
            va="bottom" if is_above else "center",
            color=colour,
            fontsize=7,
        )
