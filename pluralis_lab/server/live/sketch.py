"""The first picture of a long run: from the few events that say most, within about a second, while the rest is being read."""

from contextlib import suppress

from pluralis_lab.store import Event, EventReader, RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.fold_events import FOLDS

SPARSE = ("run.state", "enrolled", "worker.state", "error", "wire", "epoch", "validation", "round")
"""One a round or fewer. What workers report each round, and each re-routed micro-batch, is the bulk of a long run."""
MAX_OF_A_KIND = 8_000
ROUNDS_OF_WORKERS = 2


def sketch(directory: RunDirectory, reader: EventReader, *, limit: int | None = None) -> RunPicture:
    """Return a picture whose curves are right (evenly sampled above `MAX_OF_A_KIND` rounds) and whose sums are not.

    Workers show their state and what they said last; their sums over the run are missing. `seq` is 0: whoever has it has
    seen no event for certain.
    """
    picture = RunPicture.of(directory, read=False, limit=limit)
    events: list[Event] = []
    for kind in SPARSE:
        events += reader.sample(kind, MAX_OF_A_KIND)
    events += reader.newest("worker.round", ROUNDS_OF_WORKERS * max(1, len(picture.workers)))
    for event in sorted(events, key=lambda event: event.seq):
        # One that cannot be understood is named when the whole run is read; here it is only left out.
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            if (fold := FOLDS.get(event.kind)) is not None:
                fold(picture, event)
        picture.first_time = event.time if picture.first_time is None else picture.first_time
        picture.last_time = event.time
    return picture
