"""The figures that people keep and publish, by name, as plotly figures that read well on light and on dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pluralis_lab.errors import RunError
from pluralis_lab.views import palette
from pluralis_lab.views.figure_network import network
from pluralis_lab.views.figure_style import blank, note, plain, say
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.palette import worker_colours
from pluralis_lab.views.units import format_flops, format_share

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pluralis_lab.store import RunDirectory

_MAX_POINTS = 2000


def figure(run_dir: RunDirectory, name: str) -> Figure:
    """Return the plotly figure `name` of a run: "loss", "contributions", "alignment", "network" or "ownership".

    Raises RunError for another name, with the list of those there are.
    """
    draw = _FIGURES.get(name)
    if draw is None:
        raise RunError(f"figure({name!r}): no such figure; use one of {', '.join(repr(known) for known in FIGURE_NAMES)}")
    return draw(RunPicture.of(run_dir))


def _loss(picture: RunPicture) -> Figure:
    import plotly.graph_objects as go

    fig = blank(picture, "Loss", "nats a token, training and held out", hovermode="x unified")
    x, y = picture.loss.thinned(_MAX_POINTS)
    fig.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name="training",
            mode="lines",
            line={"color": palette.LINE_BLUE, "width": 1.5},
            hovertemplate="%{y:.4f} nats",
        )
    )
    x, y = picture.validation.thinned(_MAX_POINTS)
    fig.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name="validation",
            mode="lines+markers",
            line={"color": palette.VALIDATION, "width": 2},
            hovertemplate="%{y:.4f} nats",
        )
    )
    if picture.unigram_nats is not None and picture.loss.x:
        fig.add_trace(
            go.Scatter(
                x=[picture.loss.x[0], picture.loss.x[-1]],
                y=[picture.unigram_nats] * 2,
                name="unigram entropy of the corpus",
                mode="lines",
                line={"color": palette.BASELINE, "dash": "dash", "width": 1.2},
                hovertemplate="%{y:.4f} nats",
            )
        )
    for mark in [mark for mark in picture.marks if mark.kind == "death"][-20:]:
        fig.add_vline(x=mark.round, line={"color": palette.DEAD, "width": 1, "dash": "dot"})
        note(fig, mark.round, 1, f"✕ {plain(mark.worker)}", xref="x", color=palette.DEAD)
    fig.update_xaxes(title="round")
    fig.update_yaxes(title="nats a token")
    return fig


def _contributions(picture: RunPicture) -> Figure:
    import plotly.graph_objects as go

    fig = blank(
        picture, "Contributions", f"work that neighbours counted, by worker; a bar is {_rounds(picture)}", hovermode="x unified"
    )
    colours = worker_colours(picture)
    for _, group in picture.grouped():
        for worker in group:
            if not worker.work_flops.x:
                continue
            x, y = _summed(worker.work_flops.x, worker.work_flops.y, picture.rounds_done)
            fig.add_trace(
                go.Bar(
                    x=x,
                    y=y,
                    name=plain(f"{worker.name} ({worker.participant})" if worker.participant else worker.name),
                    marker={"color": colours[worker.name], "line": {"width": 0}},
                    customdata=[format_flops(value) for value in y],
                    hovertemplate="%{customdata}",
                )
            )
    fig.update_layout(barmode="stack", bargap=0)
    fig.update_xaxes(title="round")
    fig.update_yaxes(title="FLOP a bar", exponentformat="SI")
    return fig


def _rounds(picture: RunPicture) -> str:
    width = _bar_width(picture.rounds_done)
    return "one round" if width == 1 else f"{width} rounds"


def _bar_width(num_rounds: int) -> int:
    return max(1, -(-num_rounds // 200))


def _summed(x: list[int], y: list[float], num_rounds: int) -> tuple[list[int], list[float]]:
    """Return sums over blocks of rounds, at most 200 of them: bars that stay true when there are many rounds."""
    width = _bar_width(num_rounds)
    sums: dict[int, float] = {}
    for at, value in zip(x, y, strict=True):
        sums[at // width * width] = sums.get(at // width * width, 0.0) + value
    return list(sums), list(sums.values())


def _alignment(picture: RunPicture) -> Figure:
    import plotly.graph_objects as go

    fig = blank(picture, "Alignment", "cosine of each worker's gradient with the mean of the other replicas of its stage")
    workers = [worker for _, group in picture.grouped() for worker in group if worker.agreement.x]
    if not workers:
        if picture.round is not None:
            say(fig, "one replica a stage: there is no other gradient to agree with")
        return fig
    width = max(1, -(-picture.rounds_done // 300))
    columns = list(range(0, picture.rounds_done, width))
    rows = []
    for worker in workers:
        cells: list[list[float]] = [[] for _ in columns]
        for at, value in zip(worker.agreement.x, worker.agreement.y, strict=True):
            if at // width < len(cells):
                cells[at // width].append(value)
        rows.append([sum(cell) / len(cell) if cell else None for cell in cells])
    low = min(value for row in rows for value in row if value is not None)
    fig.add_trace(
        go.Heatmap(
            x=columns,
            y=[plain(f"{worker.name} · stage {worker.stage}") for worker in workers],
            z=rows,
            zmin=min(0.0, low),
            zmax=1,
            colorscale="Cividis",
            colorbar={"title": "cosine", "thickness": 12, "outlinewidth": 0},
            hoverongaps=False,
            hovertemplate="%{y}<br>round %{x}<br>cosine %{z:.3f}<extra></extra>",
            ygap=2,
        )
    )
    fig.update_xaxes(title="round", showgrid=False)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_layout(height=max(320, 160 + 26 * len(workers)))
    return fig


def _ownership(picture: RunPicture) -> Figure:
    import plotly.graph_objects as go

    fig = blank(
        picture,
        "Ownership",
        "what closed epochs give each participant, cumulated",
        hovermode="x unified",
    )
    if not picture.epochs:
        if picture.round is not None:
            say(fig, f"the first epoch closes after round {picture.epoch_rounds - 1}")
        return fig
    numbers = sorted(picture.epochs)
    names = list(picture.owned_wei())
    totals = dict.fromkeys(names, 0)
    curves: dict[str, list[int]] = {name: [] for name in names}
    for number in numbers:
        for address, amount in picture.epochs[number].amounts_wei.items():
            totals[picture.accounts.get(address.lower(), address)] += amount
        for name in names:
            curves[name].append(totals[name])
    sums = [sum(curves[name][i] for name in names) or 1 for i in range(len(numbers))]
    for index, name in enumerate(names):
        shares = [value / total for value, total in zip(curves[name], sums, strict=True)]
        fig.add_trace(
            go.Bar(
                x=numbers,
                y=shares,
                name=plain(name),
                marker={"color": palette.colour_of(index), "line": {"width": 0}},
                customdata=[
                    f"{format_share(share)}, {value / 10**18:,.2f} tokens"
                    for share, value in zip(shares, curves[name], strict=True)
                ],
                hovertemplate="%{customdata}",
            )
        )
    fig.update_layout(barmode="stack", bargap=0.15)
    fig.update_xaxes(title="epoch", dtick=max(1, len(numbers) // 12))
    fig.update_yaxes(title="share of all tokens", tickformat=".0%", range=[0, 1])
    return fig


_FIGURES: dict[str, Callable[[RunPicture], Figure]] = {
    "loss": _loss,
    "contributions": _contributions,
    "alignment": _alignment,
    "network": network,
    "ownership": _ownership,
}
FIGURE_NAMES = tuple(_FIGURES)
