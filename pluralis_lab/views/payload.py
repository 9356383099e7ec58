"""The payload that the live view and the JupyterLab renderer draw: a `RunPicture` as compact JSON.

Version 1. Series are `{"x": [round, ...], "y": [value, ...]}`, thinned so that extremes survive; numbers carry five
significant digits; a missing figure is null. Losses are nats a token, times seconds, rates bytes or tokens a second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pluralis_lab.views.own_texts import own_texts
from pluralis_lab.views.series import Series

if TYPE_CHECKING:
    from pluralis_lab.views.fold import RunPicture
    from pluralis_lab.views.picture_parts import WorkerPicture

PAYLOAD_VERSION = 1
MIME_TYPE = "application/vnd.pluralis.run+json"
MAX_PAYLOAD_BYTES = 60_000
_SPARKS = ((64, 48), (128, 24), (256, 12), (10**9, 6))
"""(workers at most, points of a sparkline) of a picture that goes out four times a second."""
_MAX_MARKS, _MAX_EPOCHS, _MAX_ERRORS, _MAX_TEXT, _MAX_OWN = 40, 24, 3, 400, 32


def _short(value: float | None) -> float | int | None:
    """Return `value` in five significant digits, as an int where nothing is lost."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short == int(short) else short


def _curve(series: Series, num_points: int) -> dict[str, Any]:
    """Return the curve as it was made last time, unless the series has changed: most workers' have not, four times a second."""
    made = series.made
    if made is None or made[:2] != (series.changes, num_points):
        x, y = series.thinned(num_points)
        made = series.made = (series.changes, num_points, {"x": x, "y": [_short(value) for value in y]})
    return dict(made[2])


def worker_parts(picture: RunPicture, num_spark: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each worker in two parts, by stage: what only its own events change, and what time and the others change too.

    The first is the same object as long as no event has changed it, so that what was made from it can be kept; it is not to be
    written to.
    """
    total_work, now = picture.total_work_flops, picture.last_time
    for _, group in picture.grouped():
        for worker in group:
            made = worker.made
            if made is None or made[:2] != (worker.changes, num_spark):
                made = worker.made = (worker.changes, num_spark, _own_figures(worker, num_spark))
            share = _short(worker.total_work_flops / total_work) if total_work else 0
            silent_s = None if now is None or worker.heard_at is None else _short(max(0.0, now - worker.heard_at))
            yield made[2], {"share": share, "silent_s": silent_s, "idle": picture.is_idle(worker)}


def _own_figures(worker: WorkerPicture, num_spark: int) -> dict[str, Any]:
    return {
        "name": worker.name[:_MAX_TEXT],
        "stage": worker.stage,
        "replica": worker.replica,
        "participant": worker.participant[:_MAX_TEXT],
        "state": worker.state,
        "reason": worker.reason[:_MAX_TEXT],
        "device": worker.device,
        "pid": worker.pid,
        "incarnation": worker.incarnation,
        "deaths": worker.deaths,
        "parameters": worker.parameters,
        "round": worker.round,
        "delay": _short(worker.delay),
        "busy": _short(worker.recent.busy),
        "tokens": _short(worker.total_tokens),
        "work_flops": _short(worker.total_work_flops),
        "bytes_per_s": _short(worker.bytes_per_s),
        "bytes_out": _short(worker.bytes_out),
        "grad_norm": _curve(worker.grad_norm, num_spark),
        "agreement": _curve(worker.agreement, num_spark),
    }


def _own_texts(picture: RunPicture) -> list[dict[str, Any]]:
    """Return the texts that were brought, those that most was drawn of first."""
    texts = sorted(own_texts(picture), key=lambda text: -text.tokens) if picture.takes_texts else []
    return [
        {
            "worker": text.worker[:_MAX_TEXT],
            "participant": text.participant[:_MAX_TEXT],
            "corpus": text.corpus,
            "hash": text.hash,
            "size": text.size,
            "tokens": text.tokens,
            "share": _short(text.share),
        }
        for text in texts[:_MAX_OWN]
    ]


def _marks(picture: RunPicture) -> list[dict[str, Any]]:
    """Return the latest marks in order of rounds; the re-routed micro-batches of one round are one mark."""
    single = [mark for mark in picture.marks if mark.kind != "reroute"][-_MAX_MARKS:]
    per_round: dict[int, int] = {}
    for mark in picture.marks:
        if mark.kind == "reroute":
            per_round[mark.round] = per_round.get(mark.round, 0) + 1
    marks: list[dict[str, Any]] = []
    for mark in single:
        marks.append({"kind": mark.kind, "round": mark.round, "worker": mark.worker[:_MAX_TEXT], "text": mark.text[:_MAX_TEXT]})
    for at, count in sorted(per_round.items())[-_MAX_MARKS:]:
        text = f"{count} micro-batch{'' if count == 1 else 'es'} re-routed in round {at}"
        marks.append({"kind": "reroute", "round": at, "worker": "", "text": text})
    return sorted(marks, key=lambda mark: int(mark["round"]))


def run_payload(picture: RunPicture, *, num_points: int = 240) -> dict[str, Any]:
    """Return the payload without its workers, curves thinned to `num_points`."""
    work, owned, fractions = picture.work_shares(), picture.owned_wei(), picture.ownership()
    epochs = [picture.epochs[number] for number in sorted(picture.epochs)]
    return {
        "version": PAYLOAD_VERSION,
        "run": picture.run,
        "name": picture.name,
        "engine": picture.engine,
        "seq": picture.seq,
        "state": picture.state,
        "reason": picture.reason[:_MAX_TEXT],
        "headline": picture.headline[:_MAX_TEXT],
        "over": picture.is_over,
        "stages": picture.stages,
        "replicas": picture.replicas,
        "steps": picture.steps,
        "round": picture.round,
        "rounds_done": picture.rounds_done,
        "epoch_rounds": picture.epoch_rounds,
        "elapsed_s": _short(picture.elapsed_s),
        "speed": _short(picture.tokens_per_s.mean(20)),
        "round_s": _short(picture.seconds.mean(20)),
        "remaining_s": _short(picture.remaining_s),
        "unigram_nats": _short(picture.unigram_nats),
        "writes_text": picture.writes_text,
        "model_parameters": picture.model_parameters,
        "stage_parameters": list(picture.stage_parameters),
        "loss": _curve(picture.loss, num_points),
        "validation": _curve(picture.validation, max(4, num_points // 2)),
        "tokens_per_s": _curve(picture.tokens_per_s, max(4, num_points // 2)),
        "tokens": _short(picture.total_tokens),
        "wire": picture.wire,
        "live_workers": picture.num_live,
        "participants": [
            {
                "name": name[:_MAX_TEXT],
                "work_share": _short(work.get(name, 0.0)),
                "owned": _short(fractions.get(name)),
                "owned_wei": str(owned.get(name, 0)),
            }
            for name in dict.fromkeys([*work, *owned])
        ],
        "epochs_closed": len(epochs),
        "epochs": [
            {
                "epoch": epoch.epoch,
                "round": epoch.round,
                "shares": {name[:_MAX_TEXT]: _short(share) for name, share in epoch.shares.items()},
                "statements": epoch.statements,
                "unpaid": epoch.unpaid,
                "attested_by": list(epoch.attested_by),
            }
            for epoch in epochs[-_MAX_EPOCHS:]
        ],
        "own_texts": _own_texts(picture),
        "reroutes": picture.reroutes,
        "checkpoints": picture.checkpoints,
        "marks": _marks(picture),
        "errors": [{key: value[:_MAX_TEXT] for key, value in error.items()} for error in picture.errors[-_MAX_ERRORS:]],
    }


def picture_payload(picture: RunPicture, *, num_points: int, num_spark: int) -> dict[str, Any]:
    """Return `picture` as the payload, its curves thinned to `num_points` and its sparklines to `num_spark`."""
    workers = [own | moving for own, moving in worker_parts(picture, num_spark)]
    return run_payload(picture, num_points=num_points) | {"workers": workers}


def live_spark(picture: RunPicture) -> int:
    """Return the points of a sparkline in a picture that is sent again and again: with many workers they get coarser."""
    return next(points for most, points in _SPARKS if len(picture.workers) <= most)


def live_payload(picture: RunPicture, *, num_points: int = 240) -> dict[str, Any]:
    """Return the payload that is sent again and again: the sparklines of many workers get coarser, the run's curves do not."""
    return picture_payload(picture, num_points=num_points, num_spark=live_spark(picture))


def compact_payload(picture: RunPicture, max_bytes: int = MAX_PAYLOAD_BYTES) -> dict[str, Any]:
    """Return the payload with curves as fine as `max_bytes` of JSON allow; for many workers they get coarser.

    With so many workers that even the coarsest curves do not fit, the sparklines are left out.
    """
    for num_points, num_spark in ((240, 48), (160, 24), (100, 12), (60, 6)):
        payload = picture.to_json(num_points=num_points, num_spark=num_spark)
        if payload_bytes(payload) <= max_bytes:
            return payload
    for worker in payload["workers"]:
        for key in ("grad_norm", "agreement"):
            worker[key] = {"x": worker[key]["x"][-1:], "y": worker[key]["y"][-1:]}
    return payload


def payload_bytes(payload: dict[str, Any]) -> int:
    """Return the size in bytes of `payload` as JSON in UTF-8."""
    return len(json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode())
