"""The record's PNG: small multiples of one run, drawn by matplotlib without a display, a browser or pyplot."""

from __future__ import annotations

import io
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pluralis_lab.views import palette
from pluralis_lab.views.palette import worker_colours
from pluralis_lab.views.units import format_duration, format_nats, format_share, format_tokens_per_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pluralis_lab.views.fold import RunPicture
    from pluralis_lab.views.series import Series

WIDTH_IN, HEIGHT_IN, EMPTY_HEIGHT_IN, DPI = 9.0, 6.0, 0.5, 192
_INK, _MUTED, _RULE = "#1b1f24", "#5b626b", "#d5d9de"
_FONT = "DejaVu Sans"
_MAX_POINTS = 600
_MAX_BANDS = 12


def png_record(picture: RunPicture) -> bytes:
    """Return the charts of `picture` as a PNG of 1728 x 1152 pixels: twice the size at which it is shown.

    Loss; contributions of each worker, stacked over rounds; gradient norm and agreement; ownership. Before the first round
    there is nothing to chart, and the PNG is one line high.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": [_FONT],
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _MUTED,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.titlecolor": _INK,
        "axes.titleweight": "bold",
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "text.color": _INK,
        "text.parse_math": False,
    }
    with mpl.rc_context(style):
        has_rounds = picture.round is not None
        layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.12)
        figure = Figure(
            figsize=(WIDTH_IN, HEIGHT_IN if has_rounds else EMPTY_HEIGHT_IN), dpi=DPI, facecolor="white", layout=layout
        )
        FigureCanvasAgg(figure)
        _title(figure, picture)
        if has_rounds:
            _panels(figure, picture)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return _small(buffer)


def _small(png: io.BytesIO) -> bytes:
    """Return the image with a palette of its own: few colours make it a third of the size in every notebook."""
    from PIL import Image

    small = io.BytesIO()
    with Image.open(png) as image:
        image.convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            small, format="PNG", optimize=True, dpi=(DPI, DPI)
        )
    return small.getvalue()


def _panels(figure: Any, picture: RunPicture) -> None:
    grid = figure.add_gridspec(3, 2, height_ratios=(5, 4.4, 1.3), width_ratios=(1, 1))
    _loss(figure.add_subplot(grid[0, :]), picture)
    _contributions(figure.add_subplot(grid[1, 0]), picture)
    lower = grid[1, 1].subgridspec(2, 1, hspace=0.05)
    _by_worker(figure.add_subplot(lower[0]), picture, "grad_norm", "Gradient norm by worker")
    _by_worker(figure.add_subplot(lower[1]), picture, "agreement", "Agreement with the other replicas (cosine)")
    _ownership(figure.add_subplot(grid[2, :]), picture)


@cache
def _glyphs() -> frozenset[int]:
    """Return the characters that the chart's font can draw (it comes with matplotlib)."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=[_FONT]))).get_charmap())


def _drawn(text: str, limit: int) -> str:
    """Return `text` on one line, at most `limit` characters long, with a box for each that the font does not have."""
    text = " ".join(text.split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(sign if ord(sign) in _glyphs() else "□" for sign in text)


def _title(figure: Any, picture: RunPicture) -> None:
    facts = [f"round {picture.rounds_done} of {picture.steps}"]
    if picture.elapsed_s is not None:
        facts.append(format_duration(picture.elapsed_s))
    if picture.tokens_per_s.y:
        facts.append(format_tokens_per_s(picture.tokens_per_s.mean(20)))
    if not picture.is_over:
        facts.append(f"{picture.num_live} of {len(picture.workers)} workers live")
    figure.suptitle(
        f"Run {_drawn(picture.name, 24)} · {_drawn(picture.headline, 60)} · " + " · ".join(facts),
        x=0.012,
        ha="left",
        fontsize=9.5,
        color=_INK,
    )


def _empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_MUTED)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _quiet(axes: Axes, picture: RunPicture) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.tick_params(length=0)
    axes.grid(axis="y", color=_RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlim(0, max(1, picture.rounds_done - 1))
    axes.locator_params(axis="y", nbins=4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def _spread(targets: list[float], gap: float) -> list[float]:
    """Return `targets` moved apart so that neighbours keep at least `gap`, each as near to its place as its order allows."""
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    placed = list(targets)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    shift = (sum(placed) - sum(targets)) / max(1, len(targets))
    return [value - shift for value in placed]


def _beside(axes: Axes, text: str, y: float, **style: Any) -> None:
    """Write `text` to the right of the axes, at height `y` of the data."""
    where: Any = ("axes fraction", "data")
    axes.annotate(
        text, (1, y), xycoords=where, xytext=(6, 0), textcoords="offset points", va="center", annotation_clip=False, **style
    )


def _loss(axes: Axes, picture: RunPicture) -> None:
    axes.set_title("Loss, nats a token")
    if not picture.loss.y:
        return _empty(axes, picture.headline)
    _quiet(axes, picture)
    axes.set_xlabel("round")
    curves: list[tuple[Series, str, str]] = [
        (picture.loss, palette.TRAIN, "training"),
        (picture.validation, palette.VALIDATION, "validation"),
    ]
    labels: list[tuple[float, str, str]] = []
    for series, colour, name in curves:
        if series.y:
            x, y = series.thinned(_MAX_POINTS)
            validation = name == "validation"
            axes.plot(
                x,
                y,
                color=colour,
                linewidth=1.6 if validation else 1.1,
                marker="o" if validation else "",
                markersize=3,
                clip_on=False,
            )
            labels.append((y[-1], f"{name} {format_nats(y[-1])}", colour))
    axes.set_xlim(right=max([axes.get_xlim()[1], *picture.validation.x[-1:]]))  # the last one is after the last round
    if picture.unigram_nats is not None:
        axes.axhline(picture.unigram_nats, color=palette.BASELINE, linewidth=1, linestyle=(0, (4, 3)))
        labels.append((picture.unigram_nats, f"unigram {format_nats(picture.unigram_nats)}", palette.BASELINE))
    low, high = axes.get_ylim()
    for place, (_, text, colour) in zip(_spread([y for y, _, _ in labels], (high - low) * 0.1), labels, strict=True):
        axes.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    deaths = [mark for mark in picture.marks if mark.kind == "death"][-6:]
    for mark in deaths:
        axes.axvline(mark.round, color=palette.DEAD, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(
            f"✕ {_drawn(mark.worker, 24)} died",
            (mark.round, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            color=palette.DEAD,
            va="top",
            fontsize=7,
        )


def _contributions(axes: Axes, picture: RunPicture) -> None:
    axes.set_title("Work by worker, share of each block of rounds")
    if not picture.total_work_flops:
        return _empty(axes, "no work yet")
    size = picture.rounds_done
    num_bins = min(60, max(1, size))
    width = size / num_bins
    totals = [0.0] * num_bins
    bands: dict[str, list[float]] = {}
    ranked = sorted(picture.workers.values(), key=lambda w: -w.total_work_flops)
    shown = {worker.name for worker in ranked[: _MAX_BANDS if len(ranked) <= _MAX_BANDS else _MAX_BANDS - 1]}
    for _, group in picture.grouped():
        for worker in group:
            name = worker.name if worker.name in shown else f"{len(ranked) - len(shown)} others"
            band = bands.setdefault(name, [0.0] * num_bins)
            for at, value in zip(worker.work_flops.x, worker.work_flops.y, strict=True):
                if at < size:
                    place = min(num_bins - 1, int(at / width))
                    band[place] += value
                    totals[place] += value
    colours = worker_colours(picture)
    base = [0.0] * num_bins
    lefts = [i * width for i in range(num_bins)]
    for name, band in bands.items():
        part = [100 * value / total if total else 0.0 for value, total in zip(band, totals, strict=True)]
        axes.bar(lefts, part, width=width, bottom=base, align="edge", color=colours.get(name, palette.GREY), linewidth=0)
        middle = base[-1] + part[-1] / 2
        if part[-1] >= 2:
            _beside(axes, _drawn(name, 18), middle, fontsize=7)
        base = [a + b for a, b in zip(base, part, strict=True)]
    _quiet(axes, picture)
    axes.set_xlim(0, size)
    axes.set_ylim(0, 100)
    axes.set_ylabel("%")
    axes.set_xlabel("round")
    axes.grid(visible=False)


def _by_worker(axes: Axes, picture: RunPicture, field: str, title: str) -> None:
    axes.set_title(title)
    colours = worker_colours(picture)
    curves = {name: getattr(worker, field) for name, worker in picture.workers.items() if getattr(worker, field).y}
    if not curves:
        return _empty(
            axes, "one replica a stage: nothing to compare" if field == "agreement" and picture.loss.y else "nothing yet"
        )
    _quiet(axes, picture)
    for name, series in curves.items():
        x, y = series.thinned(160)
        axes.plot(x, y, color=colours[name], linewidth=0.8, alpha=0.9)
    if field == "agreement":
        axes.set_ylim(min(0.0, min(min(s.y) for s in curves.values())), 1.02)
        axes.set_xlabel("round")
    else:
        axes.set_ylim(bottom=0)
        axes.tick_params(labelbottom=False)


def _epochs(picture: RunPicture) -> str:
    return f"{len(picture.epochs)} epoch{'s' * (len(picture.epochs) != 1)}"


def _ownership(axes: Axes, picture: RunPicture) -> None:
    fractions = picture.ownership()
    work = picture.work_shares()
    axes.set_title(
        f"Ownership after {_epochs(picture)}" if fractions else "Share of the work so far (no epoch has been paid yet)"
    )
    shares = fractions or {name: share for name, share in work.items() if share}
    if not shares:
        return _empty(axes, "no work yet")
    left = 0.0
    order = list(dict.fromkeys([*picture.participants, *shares]))
    for name, share in shares.items():
        colour = palette.colour_of(order.index(name))
        axes.barh(0, share, left=left, height=0.9, color=colour, edgecolor="white", linewidth=1.5)
        if share > 0.04:
            label = f"{_drawn(name, 22)}  {format_share(share)}" if share > 0.15 else format_share(share)
            axes.text(
                left + share / 2, 0, label, ha="center", va="center", color=palette.ink_on(colour), fontsize=8, fontweight="bold"
            )
        left += share
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, 0.5)
    axes.axis("off")
