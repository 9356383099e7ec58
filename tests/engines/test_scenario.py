"""The files in which a worker's events are recorded: none is overwritten, and one that is missing hides no other."""

from pathlib import Path

import pytest

from pluralis_lab.engines.scenario import ScenarioLog, read_scenario
from pluralis_lab.engines.scenario_files import first_unrecorded
from pluralis_lab.worker import Leave


def test_a_later_start_begins_after_all_that_is_recorded(tmp_path: Path) -> None:
    assert first_unrecorded(tmp_path) == 0
    for incarnation in (0, 2, 10):  # the process of 1 died before it could write anything
        log = ScenarioLog(tmp_path, incarnation, founding=True)
        log.note(Leave(), at=1.0)
        log.close()
    assert first_unrecorded(tmp_path) == 11
    assert [lines[0]["incarnation"] for lines in read_scenario(tmp_path)] == [0, 2, 10]
    with pytest.raises(FileExistsError):
        ScenarioLog(tmp_path, 2)
    assert all(len(lines) == 2 for lines in read_scenario(tmp_path))
