"""The figure "network": who sent how many bytes to whom, stages from left to right, replicas from top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluralis_lab.views import palette
from pluralis_lab.views.figure_style import blank, note, plain
from pluralis_lab.views.units import format_bytes, format_count

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pluralis_lab.views.fold import RunPicture

_KINDS = (("forward", palette.LINE_BLUE), ("backward", palette.ORANGE), ("sync", palette.GREEN))
_BEND = 0.07
Place = tuple[float, float]


def network(picture: RunPicture) -> Figure:
    """Return the links between workers, as wide as the bytes they carried, in the colour of what most of these were."""
    import plotly.graph_objects as go

    fig = blank(picture, "Network", "bytes that each worker sent to each other worker since the start", showlegend=False)
    if picture.round is None:
        return fig
    workers = list(picture.workers.values())
    places: dict[str, Place] = {worker.name: (float(worker.stage), -float(worker.replica)) for worker in workers}
    links = [(w.name, peer, link) for w in workers for peer, link in w.links.items() if peer in places and _total(link)]
    most = max((_total(link) for _, _, link in links), default=1.0)
    for source, target, link in links:
        for trace in _link(go, source, target, link, places, most):
            fig.add_trace(trace)
    fig.add_trace(
        go.Scatter(
            x=[places[worker.name][0] for worker in workers],
            y=[places[worker.name][1] for worker in workers],
            mode="markers+text",
            text=[("✕ " if worker.is_dead else "") + plain(worker.name) for worker in workers],
            textposition=["top center" if worker.replica == 0 else "bottom center" for worker in workers],
            marker={
                "size": 22,
                "color": [palette.DEAD if worker.is_dead else palette.GREY for worker in workers],
                "symbol": ["x" if worker.is_dead else "circle" for worker in workers],
            },
            customdata=[f"{format_bytes(w.bytes_out)} sent<br>{format_bytes(w.bytes_in)} received" for w in workers],
            hovertemplate="%{text}<br>%{customdata}<extra></extra>",
        )
    )
    for place, (name, colour) in enumerate(_KINDS):
        note(fig, 0.13 * place, 1.1, f"━ {name}", color=colour)
    stages = sorted({worker.stage for worker in workers})
    lowest = min(y for _, y in places.values())
    fig.update_xaxes(
        tickvals=stages,
        ticktext=[f"stage {stage}" for stage in stages],
        showgrid=False,
        showline=False,
        side="top",
        range=[stages[0] - 0.4, stages[-1] + 0.4],
    )
    fig.update_yaxes(visible=False, range=[lowest - 0.5, 0.5])
    fig.update_layout(height=max(360, 240 + 90 * int(1 - lowest)), margin={"t": 130, "l": 24, "b": 24})
    return fig


def _total(link: dict[str, float]) -> float:
    return sum(link.get(f"{kind}_bytes", 0.0) for kind, _ in _KINDS)


def _link(go: Any, source: str, target: str, link: dict[str, float], places: dict[str, Place], most: float) -> list[Any]:
    """Return a curve, and at its middle the invisible point that carries the hover text."""
    (x0, y0), (x1, y1) = places[source], places[target]
    # To the left of its own direction, so that the two directions of a pair stay apart.
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 or 1.0
    side = (-(y1 - y0) / length, (x1 - x0) / length)
    # Both directions leave and arrive at the same points; routes that cross the figure bend less than one replica row.
    middle = ((x0 + x1) / 2 + _BEND * side[0], (y0 + y1) / 2 + _BEND * side[1])
    # A third of the way for the hover point: in the middle crossing links would hide each other.
    point = (x0 + (middle[0] - x0) * 2 / 3, y0 + (middle[1] - y0) * 2 / 3)
    colour = max(_KINDS, key=lambda kind: link.get(f"{kind[0]}_bytes", 0.0))[1]
    lines = [f"{plain(source)} → {plain(target)}"]
    for kind, _ in _KINDS:
        if size := link.get(f"{kind}_bytes", 0.0):
            tokens = link.get(f"{kind}_tokens")
            lines.append(f"{kind} {format_bytes(size)}" + (f", {format_count(tokens)} tokens" if tokens else ""))
    curve = go.Scatter(
        x=[x0, middle[0], x1],
        y=[y0, middle[1], y1],
        mode="lines",
        line={"color": colour, "width": 1.3 + 6 * _total(link) / most, "shape": "spline"},
        opacity=0.75,
        hoverinfo="skip",
    )
    hover = go.Scatter(
        x=[point[0]],
        y=[point[1]],
        mode="markers",
        marker={"size": 14, "opacity": 0, "color": colour},
        hovertemplate="<br>".join(lines) + "<extra></extra>",
    )
    return [curve, hover]
