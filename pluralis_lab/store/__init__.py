"""The run directory: the one truth that kernel, command line and server read. One process writes it, any number read it."""

from pluralis_lab.store.events import Event, EventReader, EventWriter
from pluralis_lab.store.evidence import EvidenceFolder
from pluralis_lab.store.home import lab_home
from pluralis_lab.store.rundir import RUN_ID, RunDirectory, find_run, list_runs, new_run_id

__all__ = [
    "RUN_ID",
    "Event",
    "EventReader",
    "EventWriter",
    "EvidenceFolder",
    "RunDirectory",
    "find_run",
    "lab_home",
    "list_runs",
    "new_run_id",
]
