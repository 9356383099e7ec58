"""How each kind of event changes the picture of a run: one function a kind, found in `FOLDS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pluralis_lab.views.own_texts import brought, count_drawn
from pluralis_lab.views.picture_parts import LIVE_STATES, Epoch, Mark, finite
from pluralis_lab.views.units import format_duration

if TYPE_CHECKING:
    from pluralis_lab.store import Event
    from pluralis_lab.views.fold import RunPicture
    from pluralis_lab.views.picture_parts import WorkerPicture


def _run_state(picture: RunPicture, event: Event) -> None:
    picture.state = str(event.body.get("state", picture.state))
    picture.reason = str(event.body.get("reason") or "")
    picture.ended_at = event.time if picture.is_over else None
    if picture.state == "running" and picture.running_since is None:
        picture.running_since = event.time
    if picture.state in ("starting", "running"):
        for worker in picture.workers.values():
            _begin_to_count(worker)


def _begin_to_count(worker: WorkerPicture) -> None:
    """Forget the last rounds: time in which the run stood still, or the worker was away, is no time that it did nothing in."""
    worker.recent.reports.clear()
    worker.changes += 1


def _enrolled(picture: RunPicture, event: Event) -> None:
    """Take in a worker that was attached: `run.json` may have been read before it was in there."""
    worker = picture.worker(event.worker or "")
    worker.is_awaited = True
    _seat(picture, worker, event.body)
    worker.own_text = brought(event.body.get("data"))
    if 0 <= worker.stage < len(picture.stage_parameters):
        worker.parameters = picture.stage_parameters[worker.stage]
    if event.body.get("address"):
        picture.accounts[str(event.body["address"]).lower()] = worker.participant


def _seat(picture: RunPicture, worker: WorkerPicture, body: dict[str, Any]) -> None:
    """Note where a worker sits, and for whom."""
    worker.changes += 1
    for key in ("stage", "replica", "pid", "incarnation", "parameters"):
        if body.get(key) is not None:
            setattr(worker, key, int(body[key]))
    for key in ("participant", "device"):
        if body.get(key):
            setattr(worker, key, str(body[key]))
    if worker.participant and worker.participant not in picture.participants:
        picture.participants.append(worker.participant)


def _worker_state(picture: RunPicture, event: Event) -> None:
    worker, body = picture.worker(event.worker or ""), event.body
    before, worker.state = worker.state, str(body.get("state", worker.state))
    worker.reason = str(body.get("reason") or "")
    received, whole = finite(body.get("received_bytes")), finite(body.get("size_bytes"))
    if received is not None and whole:
        worker.reason = f"{received / 1e6:.1f} of {whole / 1e6:.1f} MB of its stage's state are here"
    if worker.state in LIVE_STATES and before not in LIVE_STATES:
        _begin_to_count(worker)
    _seat(picture, worker, body)
    at = event.round if event.round is not None else picture.round or 0
    if worker.is_dead and before != "dead":
        worker.deaths += 1
        worker.aside_at = None
        picture.marks.append(Mark("death", at, worker.name, f"{worker.name} died in round {at}"))
    elif worker.state == "aside" and worker.aside_at is None:
        worker.aside_at = event.time
        text = f"{worker.name} is set aside by {body.get('by')} in round {at}: {worker.reason}"
        picture.marks.append(Mark("aside", at, worker.name, text))
    elif worker.state in LIVE_STATES and worker.aside_at is not None:
        away_s, worker.aside_at = event.time - worker.aside_at, None
        picture.marks.append(Mark("back", at, worker.name, f"{worker.name} is back in round {at}, after {away_s:.3g} s"))
    elif worker.state == "active" and worker.is_awaited:
        worker.is_awaited = False
        text = f"{worker.name} of {worker.participant} joined stage {worker.stage} in round {at}"
        picture.marks.append(Mark("joined", at, worker.name, text))
    elif worker.state in LIVE_STATES and worker.deaths and before not in LIVE_STATES:
        picture.marks.append(Mark("return", at, worker.name, f"{worker.name} is back in round {at}"))
    worker.heard_at = event.time
    if worker.state not in LIVE_STATES:
        worker._heard = worker.bytes_per_s = None
    elif worker._heard is None:
        worker._heard = event.time


def _round(picture: RunPicture, event: Event) -> None:
    if event.round is None:
        return
    picture.round = event.round
    loss = finite(event.body.get("loss"))
    if loss is None:
        picture.marks.append(Mark("diverged", event.round, "", f"the loss of round {event.round} is not finite"))
    else:
        picture.loss.put(event.round, loss)
    for key, series in (("tokens_per_s", picture.tokens_per_s), ("seconds", picture.seconds)):
        value = finite(event.body.get(key))
        if value is not None:
            series.put(event.round, value)
    tokens = finite(event.body.get("tokens"))
    if tokens is not None:
        picture.total_tokens += tokens - (picture.tokens.put(event.round, tokens) or 0.0)


def _validation(picture: RunPicture, event: Event) -> None:
    loss = finite(event.body.get("loss"))
    if event.round is not None and loss is not None:
        picture.validation.put(event.round, loss)


def _worker_round(picture: RunPicture, event: Event) -> None:
    if event.round is None:
        return
    worker, body = picture.worker(event.worker or ""), event.body
    worker.changes += 1
    worker.round = event.round
    tokens, work = finite(body.get("tokens")) or 0.0, finite(body.get("work_flops")) or 0.0
    worker.total_tokens += tokens - (worker.tokens.put(event.round, tokens) or 0.0)
    worker.total_work_flops += work - (worker.work_flops.put(event.round, work) or 0.0)
    for key, series in (("grad_norm", worker.grad_norm), ("agreement", worker.agreement)):
        value = finite(body.get(key))
        if value is not None:
            series.put(event.round, value)
    if (delay := finite(body.get("delay"))) is not None:
        worker.delay = delay
    sent = finite(body.get("bytes_out")) or 0.0
    worker.recent.put(event.time, finite(body.get("compute_s")) or 0.0, tokens)
    if worker._heard is not None and event.time > worker._heard:
        worker.bytes_per_s = sent / (event.time - worker._heard)
    worker._heard = worker.heard_at = event.time
    if picture.takes_texts and worker.stage == 1:
        count_drawn(picture, worker, event.round, body.get("links") or {})
    _count_bytes(picture, worker, body)


def _links(picture: RunPicture, event: Event) -> None:
    """Count what a worker sent when no round was left to tell it with: a rate is made of rounds alone."""
    worker = picture.worker(event.worker or "")
    worker.changes += 1
    worker.heard_at = event.time
    _count_bytes(picture, worker, event.body)


def _count_bytes(picture: RunPicture, worker: WorkerPicture, body: dict[str, Any]) -> None:
    """Add what a report says of the worker's links to its sums."""
    worker.bytes_out += finite(body.get("bytes_out")) or 0.0
    worker.bytes_in += finite(body.get("bytes_in")) or 0.0
    if picture.limit is not None:
        return  # what goes between each two workers is drawn in figures, from an unbounded picture
    for peer, link in (body.get("links") or {}).items():
        total = worker.links.setdefault(peer, {})
        for key, value in link.items():
            total[key] = total.get(key, 0.0) + (finite(value) or 0.0)


def _exchange(picture: RunPicture, event: Event) -> None:
    """Note an exchange between replicas: between two of them a worker has no agreement with the others."""
    worker, body = picture.worker(event.worker or ""), event.body
    worker.changes += 1
    worker.exchanges += 1
    worker.exchanges_waited += bool(body.get("waited"))
    late = finite(body.get("late"))
    if late:
        worker.exchange_late = int(late)
    _, agreement = (body.get("observed") or {}).get(event.worker, (None, None))
    if event.round is not None and (value := finite(agreement)) is not None:
        worker.agreement.put(event.round, value)


def _reroute(picture: RunPicture, event: Event) -> None:
    picture.reroutes += 1
    body, at = event.body, event.round if event.round is not None else picture.round or 0
    text = f"{event.worker} sent micro-batch {body.get('index')} to {body.get('to')} instead of {body.get('dead')}"
    picture.marks.append(Mark("reroute", at, str(event.worker or ""), text))


def _refresh(picture: RunPicture, event: Event) -> None:
    """Note the newest turn of the subspace, and none of those before it: there can be hundreds, and each is in the loss."""
    before, after = finite(event.body.get("loss_before")), finite(event.body.get("loss_after"))
    if event.round is None or before is None or after is None:
        return
    losses = f"validation loss {before:.3f} before that round, {after:.3f} after it"
    text = f"the subspace turned with the step of round {event.round}: {losses}"
    mark = Mark("refresh", event.round, "", text)
    place = next((index for index, known in enumerate(picture.marks) if known.kind == "refresh"), None)
    if place is None:
        picture.marks.append(mark)
    else:
        picture.marks[place] = mark  # those behind it stay where they are: who follows counts them


def _epoch(picture: RunPicture, event: Event) -> None:
    body = event.body
    number = int(body.get("epoch", len(picture.epochs)))
    picture.epochs[number] = Epoch(
        epoch=number,
        round=event.round if event.round is not None else (number + 1) * picture.epoch_rounds - 1,
        shares={str(name): int(num) / int(den) for name, (num, den) in (body.get("shares") or {}).items()},
        amounts_wei={str(address): int(amount) for address, amount in (body.get("amounts") or {}).items()},
        statements=int(body.get("statements") or 0),
        unpaid=int(body.get("unpaid") or 0),
        attested_by=tuple(str(name) for name in body.get("attested_by") or ()),
    )


def _checkpoint(picture: RunPicture, event: Event) -> None:
    picture.checkpoints += 1


def _wire(picture: RunPicture, event: Event) -> None:
    picture.wire = {key: value for key, value in event.body.items() if isinstance(value, str) or finite(value) is not None}


def _error(picture: RunPicture, event: Event) -> None:
    picture.errors.append(
        {
            "worker": event.worker or "",
            "message": str(event.body.get("message", "")),
            "after": format_duration(event.time - picture.first_time) if picture.first_time is not None else "",
        }
    )


FOLDS: dict[str, Callable[[RunPicture, Event], None]] = {
    "run.state": _run_state,
    "enrolled": _enrolled,
    "worker.state": _worker_state,
    "round": _round,
    "validation": _validation,
    "worker.round": _worker_round,
    "links": _links,
    "exchange": _exchange,
    "reroute": _reroute,
    "refresh": _refresh,
    "epoch": _epoch,
    "checkpoint": _checkpoint,
    "wire": _wire,
    "error": _error,
}
