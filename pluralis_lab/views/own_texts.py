"""The texts that workers brought along: whose they are, and how much of what was trained on was drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pluralis_lab.views.picture_parts import finite
from pluralis_lab.views.series import BoundedSeries, Series

if TYPE_CHECKING:
    from pluralis_lab.views.fold import RunPicture
    from pluralis_lab.views.picture_parts import WorkerPicture


@dataclass(frozen=True)
class OwnText:
    """A text that one worker brought.

    size : its training tokens; tokens : drawn from it so far; share : of all tokens that stage 1 counted
    """

    worker: str
    participant: str
    corpus: str
    hash: str
    size: int
    tokens: int
    share: float


def brought(facts: Any) -> tuple[str, str, int] | None:
    """Return the name, hash and size of the text that a worker's row or event tells of, None where it tells of none."""
    if not isinstance(facts, dict):
        return None
    return str(facts.get("name", ""))[:80], str(facts.get("hash", ""))[:64], int(finite(facts.get("train_tokens")) or 0)


def count_drawn(picture: RunPicture, counter: WorkerPicture, round_: int, links: Any) -> None:
    """Count what `counter`, a worker of stage 1, got of texts that heads brought; a round that is repeated counts once.

    links : what it says of its links to others in `round_`, by their name
    """
    said = links.items() if isinstance(links, dict) else ()
    told = {str(head): finite(link.get("own_tokens")) or 0.0 for head, link in said if isinstance(link, dict)}
    for head in [*counter.own_drawn, *(head for head, tokens in told.items() if tokens and head not in counter.own_drawn)]:
        limit = picture.worker_limit
        series = counter.own_drawn.setdefault(head, Series() if limit is None else BoundedSeries(limit))
        tokens = told.get(head, 0.0)
        counter.own_counted[head] = counter.own_counted.get(head, 0.0) + tokens - (series.put(round_, tokens) or 0.0)


def own_texts(picture: RunPicture) -> list[OwnText]:
    """Return the texts that were brought, by worker, also of those who have left."""
    counted = [worker for worker in picture.workers.values() if worker.stage == 1]
    total = sum(worker.total_tokens for worker in counted)
    found = []
    for _, group in picture.grouped():
        for worker in group:
            if worker.own_text is not None:
                tokens = int(sum(counter.own_counted.get(worker.name, 0.0) for counter in counted))
                share = tokens / total if total else 0.0
                found.append(OwnText(worker.name, worker.participant, *worker.own_text, tokens, share))
    return found
