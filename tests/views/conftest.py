"""Runs for the tests of the views, written through the real store."""

import sys
from pathlib import Path

import pytest

# pytest imports tests without touching the path; the helpers of this folder are plain modules.
sys.path.insert(0, str(Path(__file__).parent))

from made_up_run import event_rows, make_run, write_rows

from pluralis_lab.store import RunDirectory


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of 200 rounds, three stages, two replicas, eight epochs; one worker was killed and came back."""
    run = make_run(tmp_path_factory.mktemp("finished"))
    return write_rows(run, event_rows(run))


@pytest.fixture(scope="session")
def half_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The same run after 92 rounds: one worker is dead."""
    run = make_run(tmp_path_factory.mktemp("half"))
    return write_rows(run, event_rows(run, until=92))


@pytest.fixture
def empty_run(tmp_path: Path) -> RunDirectory:
    """A run before its first event."""
    return make_run(tmp_path)
