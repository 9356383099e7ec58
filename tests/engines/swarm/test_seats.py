"""What a supervisor knows of the processes in its seats."""

import os
import subprocess
import sys

import psutil
import pytest

from pluralis_lab.engines.swarm.seats import Seat


def test_a_seat_knows_whether_its_process_lives_at_every_moment_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seat = Seat("worker-0", 0, 0)
    assert not seat.is_alive
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seat.pid = process.pid
    assert seat.is_alive
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not seat.is_alive, "a zombie"
    at_first_look = psutil.Process(process.pid)
    process.wait()
    assert not seat.is_alive, "gone"
    monkeypatch.setattr(psutil, "Process", lambda pid: at_first_look)
    assert not seat.is_alive, "gone from one look to the next"
    seat.kill()
