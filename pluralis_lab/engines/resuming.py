"""Where a stopped run goes on: at the newest checkpoint that every stage has undamaged, and that the record has reached.

A worker reports a round before it saves the checkpoint after it, but the report can be lost when the supervisor is killed or
finds the disk full. Such a round has to be trained again: otherwise its receipts, and its epoch, would be missing for ever.
"""

from pluralis_lab.phases import HOLDING
from pluralis_lab.store import RunDirectory
from pluralis_lab.store.checkpoints import CheckpointFolder, newest_common

MAX_TIMES_BACK = 5
"""Going back to the same checkpoint more often helps nobody: what ends a stage's workers each time is no accident."""


def resume_version(run: RunDirectory) -> int:
    """Return the number of rounds that `run` goes on from, 0 for its seed."""
    folders: list[list[CheckpointFolder]] = [[] for _ in range(run.spec.stages)]
    for worker in run.info["workers"]:
        if worker.get("left"):
            continue  # nobody will load what it has
        folders[worker["stage"]].append(CheckpointFolder(run.worker_folder(worker["name"])))
    return newest_common(folders, up_to=recorded_rounds(run))


def recorded_rounds(run: RunDirectory) -> int:
    """Return how many rounds the record has whole: the loss, and the reports of every worker that was there to the end."""
    events = run.events(kinds=["run.state", "worker.state", "worker.round"])
    starts = [number for number, event in enumerate(events) if event.kind == "run.state" and event.body["state"] == "starting"]
    reached: dict[str, int] = {}
    left = {worker["name"] for worker in run.info["workers"] if worker.get("left")}
    # Of the last start alone: reports of rounds that it has trained again are older than what they speak of.
    for event in events[starts[-1] if starts else 0 :]:
        if event.worker is None or event.worker in left or (event.kind == "worker.state" and event.body["state"] == "stopped"):
            continue
        if event.kind == "worker.round" and event.round is not None:
            reached[event.worker] = event.round + 1
        elif event.kind == "worker.state" and event.body["state"] in HOLDING and event.round is not None:
            reached[event.worker] = max(event.round, reached.get(event.worker, 0))
        else:  # what a worker that died by itself had not reported is lost as always: the others of its stage went on
            reached.pop(event.worker, None)
    first = int(run.info.get("started_from", 0))
    seen = {event.round for event in run.events(kinds=["round"])}
    whole = next(number for number in range(run.spec.steps + 1) if number not in seen)
    return min([whole, *reached.values()]) if reached else first
