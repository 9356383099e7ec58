"""The stored record of a run, readable without a kernel, a browser engine or a style sheet: text, HTML and JSON."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pluralis_lab.views.payload import MIME_TYPE, compact_payload
from pluralis_lab.views.units import (
    NOT_KNOWN,
    format_bytes,
    format_bytes_per_s,
    format_count,
    format_duration,
    format_flops,
    format_nats,
    format_number,
    format_share,
    format_tokens_per_s,
)

if TYPE_CHECKING:
    from pluralis_lab.views.fold import RunPicture
    from pluralis_lab.views.series import Series

_BARS = "▁▂▃▄▅▆▇█"
_WORKER_HEADS = ("worker", "stage", "participant", "state", "work", "share", "gradient norm", "agreement", "sent", "sending")
_LEFT = frozenset(("worker", "participant", "state", "gradient norm", "agreement"))
_STATE_MARKS = {"active": "●", "serving": "◆", "dead": "✕", "stopped": "■"}


def state_text(state: str) -> str:
    """Return a worker's state with the sign that stands beside it everywhere."""
    return f"{_STATE_MARKS.get(state, '◐')} {state}"


def sparkline(series: Series, width: int = 16) -> str:
    """Return the curve as `width` block characters at most (the mean of each bucket), empty without values."""
    size = len(series.y)
    if not size:
        return ""
    width = min(width, size)
    edges = [i * size // width for i in range(width + 1)]
    means = [sum(series.y[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1) + 0.5) if span else 3] for value in means)


def summary_rows(picture: RunPicture) -> list[tuple[str, str]]:
    """Return the figures of the whole run as (name, value with unit)."""
    first_loss = picture.loss.y[0] if picture.loss.y else None
    rows = [
        ("state", picture.headline),
        ("rounds", f"{picture.rounds_done} of {picture.steps}"),
        ("elapsed", format_duration(picture.elapsed_s)),
        (
            "training loss",
            format_nats(picture.loss.last) + (f" (first round: {format_nats(first_loss)})" if picture.loss.y else ""),
        ),
        ("validation loss", format_nats(picture.validation.last)),
        ("unigram entropy of the corpus", format_nats(picture.unigram_nats)),
    ]
    if picture.unigram_nats is not None and picture.validation.last is not None:
        gain = picture.unigram_nats - picture.validation.last
        rows.append((f"validation {'below' if gain >= 0 else 'above'} unigram by", format_nats(abs(gain))))
    rows += [
        ("speed", format_tokens_per_s(picture.tokens_per_s.mean(20))),
        ("tokens trained on", format_count(sum(picture.tokens.y))),
        ("workers", str(len(picture.workers)) if picture.is_over else f"{picture.num_live} of {len(picture.workers)} live"),
        ("deaths", str(sum(worker.deaths for worker in picture.workers.values()))),
        ("micro-batches re-routed", str(picture.reroutes)),
        ("epochs closed", str(len(picture.epochs))),
    ]
    if picture.wire:
        forward, backward = (picture.wire.get(f"{way}_bytes_per_token") for way in ("forward", "backward"))
        rows.append(("boundary bytes a token", f"{format_number(forward, 4)} forward, {format_number(backward, 4)} back"))
    if delays := stage_delays(picture):
        rows.append(("gradients late by stage", f"{', '.join(format_number(delay, 3) for delay in delays)} steps"))
    if exchanges := max((worker.exchanges for worker in picture.workers.values()), default=0):
        waited = max(worker.exchanges_waited for worker in picture.workers.values())
        late = max((worker.exchange_late or 0 for worker in picture.workers.values()), default=0)
        when = f"merged {late} round{'s' * (late != 1)} later, " if late else ""
        rows.append(("exchanges between replicas", f"{exchanges}, {when}{waited} waited for"))
    return rows


def stage_delays(picture: RunPicture) -> list[float]:
    """Return how many steps the gradients of each stage are late, on average over its workers; empty where none are."""
    by_stage = [[worker.delay for worker in group if worker.delay is not None] for _, group in picture.grouped()]
    return [sum(some) / len(some) for some in by_stage] if by_stage and all(by_stage) else []


def worker_rows(picture: RunPicture) -> list[tuple[str, ...]]:
    """Return a row a worker, by stage, with units; the columns are those of the record's worker table."""
    total = picture.total_work_flops
    return [
        (
            worker.name,
            str(worker.stage),
            worker.participant or NOT_KNOWN,
            state_text(worker.state) + (f" (died {worker.deaths}×)" if worker.deaths and not worker.is_dead else ""),
            format_flops(worker.total_work_flops),
            format_share(worker.total_work_flops / total if total else None),
            f"{sparkline(worker.grad_norm)} {format_number(worker.grad_norm.mean(20))}".strip(),
            f"{sparkline(worker.agreement)} {format_number(worker.agreement.mean(20))}".strip(),
            format_bytes(worker.bytes_out),
            format_bytes_per_s(worker.bytes_per_s),
        )
        for _, group in picture.grouped()
        for worker in group
    ]


def owner_rows(picture: RunPicture) -> list[tuple[str, ...]]:
    """Return a row a participant: its share of the work seen, and of the tokens that closed epochs gave out."""
    work, fractions, owned = picture.work_shares(), picture.ownership(), picture.owned_wei()
    return [
        (name, format_share(work.get(name, 0.0)), format_share(fractions.get(name)), f"{owned.get(name, 0) / 10**18:,.2f}")
        for name in dict.fromkeys([*work, *owned])
    ]


_OWNER_HEADS = ("participant", "share of work", "ownership", "tokens")


def _aligned(heads: Sequence[str], rows: Iterable[Sequence[str]], left: frozenset[str]) -> list[str]:
    table = [tuple(" ".join(cell.split()) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in [tuple(heads), *table]) for i in range(len(heads))]
    lines = []
    for row in [tuple(heads), tuple("─" * width for width in widths), *table]:
        cells = (f"{cell:<{w}}" if head in left else f"{cell:>{w}}" for cell, w, head in zip(row, widths, heads, strict=True))
        lines.append("  ".join(cells))
    return lines


def text_record(picture: RunPicture) -> str:
    """Return the record as plain text: figures, a line a worker with sparkline characters, owners, what happened."""
    rows = summary_rows(picture)
    width = max(len(name) for name, _ in rows)
    lines = [f"pluralis_lab run {picture.name}", "", *(f"{name:<{width}}  {' '.join(value.split())}" for name, value in rows)]
    if picture.loss.y:
        lines.append(f"{'training loss by round':<{width}}  {sparkline(picture.loss, 48)}")
    lines += ["", *_aligned(_WORKER_HEADS, worker_rows(picture), _LEFT)]
    if picture.participants:
        lines += ["", *_aligned(_OWNER_HEADS, owner_rows(picture), frozenset(("participant",)))]
    if notes := _notes(picture):
        lines += ["", *(f"- {' '.join(note.split())}" for note in notes)]
    return "\n".join(lines)


def _notes(picture: RunPicture) -> list[str]:
    notes = [mark.text for mark in picture.marks if mark.kind != "reroute"][-12:]
    return notes + [f"{error['worker'] or 'the run'}: {error['message']}" for error in picture.errors[-3:]]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    head = "".join(f'<th scope="col" style="text-align:left">{html.escape(cell)}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(row[0])}</th>'
        + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<h4>{html.escape(caption)}</h4><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        if body
        else f"<h4>{html.escape(caption)}</h4><p>nothing yet</p>"
    )


def html_record(picture: RunPicture, png: bytes | None = None) -> str:
    """Return the record as HTML that says everything in headings and tables, also with all styles and images stripped.

    `png` (the chart) is shown above the tables where the reader allows images.
    """
    parts = [f"<h3>Run {html.escape(picture.name)}: {html.escape(picture.headline)}</h3>"]
    if png is not None:
        alt = "Charts of the run; the tables below give the same figures."
        source = base64.b64encode(png).decode()
        parts.append(f'<p><img alt="{alt}" style="max-width:100%;width:900px" src="data:image/png;base64,{source}"></p>')
    parts.append(_table(("figure", "value"), summary_rows(picture), "The run"))
    parts.append(_table(_WORKER_HEADS, worker_rows(picture), "Workers"))
    parts.append(_table(_OWNER_HEADS, owner_rows(picture), "Owners"))
    if notes := _notes(picture):
        parts.append("<h4>What happened</h4><ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>")
    parts.append(f"<p>Run id <code>{html.escape(picture.run)}</code></p>")
    return f"<section>{''.join(parts)}</section>"


def record(picture: RunPicture) -> dict[str, Any]:
    """Return the record's mime bundle: our JSON, a PNG (base64), HTML and plain text, all from the same picture."""
    from pluralis_lab.views.chart import png_record

    png = png_record(picture)
    return {
        MIME_TYPE: compact_payload(picture),
        "image/png": base64.b64encode(png).decode(),
        "text/html": html_record(picture, png),
        "text/plain": text_record(picture),
    }
