"""Where a worker's recorded events lie: one file for each of its incarnations. Apart from what reads them, which loads torch."""

from pathlib import Path


def scenario_path(folder: Path, incarnation: int) -> Path:
    """Return the file of an incarnation in a worker's folder."""
    return folder / f"events-{incarnation}.jsonl"


def recorded_incarnations(folder: Path) -> list[int]:
    """Return the incarnations that are recorded in a worker's folder, ascending."""
    return sorted(int(path.stem.partition("-")[2]) for path in folder.glob("events-*.jsonl"))


def first_unrecorded(folder: Path) -> int:
    """Return the incarnation after all that are recorded in a worker's folder, with which a later start of the run begins."""
    return max(recorded_incarnations(folder), default=-1) + 1
