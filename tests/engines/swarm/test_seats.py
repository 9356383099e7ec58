"""What a supervisor knows of the processes in its seats."""

import os
import subprocess
import sys

import psutil
import pytest

from pluralis_lab.engines.swarm.deaths import why_no_accident
from pluralis_lab.engines.swarm.hosts import Hosts
from pluralis_lab.engines.swarm.seats import Seat, Seats


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


def test_nobody_waits_for_a_worker_that_is_set_aside() -> None:
    nobody = Hosts(lambda name, pid, status: None, lambda name, pid: None, lambda name: None)
    seats = Seats([{"name": f"worker-{n}", "stage": 0, "replica": n} for n in range(2)], nobody)
    for seat in seats:
        seat.pid, seat.state, seat.is_up, seat.is_told_to_go = os.getpid(), "serving", True, True
    seats["worker-0"].set_aside(3.0)
    assert seats.are_trained
    assert seats.let_go(), "who comes in now is kept waiting"
    assert seats.hold(0)
    assert seats.ask_to_leave("worker-1") == (
        "worker-1 is the only one that has stage 0; attach another there first, or run.stop() the run"
    )
    assert "not up yet" in (seats.ask_to_leave("worker-0") or "")
    seats["worker-1"].state = "dead"
    assert not seats.hold(0), "what it holds is of an earlier round"
    seats["worker-0"].clear(version=0)
    assert not seats["worker-0"].is_aside


def test_who_begins_later_is_told_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str, object]] = []
    monkeypatch.setattr(Seat, "say", lambda seat, **message: said.append((seat.name, message["op"], message.get("lost"))))
    nobody = Hosts(lambda name, pid, status: None, lambda name, pid: None, lambda name: None)
    seats = Seats([{"name": f"worker-{n}", "stage": 0, "replica": n} for n in range(3)], nobody)
    for seat in seats:
        seat.is_up = True
    assert seats.let_go()
    for incarnation in (0, 1, 1):
        seats["worker-1"].incarnation = incarnation
        seats.tell_lost(seats["worker-1"])
    seats.add({"name": "worker-3", "stage": 0, "replica": 3})
    seats["worker-3"].is_up = True
    assert seats.let_go()
    told = [(name, "lost", None) for name in ("worker-0", "worker-2")]
    assert said[3 : 3 + len(told) * 2] == told * 2, "each life once"
    assert said[-1] == ("worker-3", "go", {"worker-1": 1})


def test_a_founder_that_dies_at_once_fails_a_resumed_run_as_it_fails_a_new_one() -> None:
    nobody = Hosts(lambda name, pid, status: None, lambda name, pid: None, lambda name: None)
    workers = [{"name": f"worker-{n}", "stage": n, "replica": 0} for n in range(2)]
    seats = Seats(workers, nobody, first={"worker-1": 3})  # whose incarnations 0 to 2 are recorded
    assert [seat.incarnation for seat in seats] == [0, 3]
    assert "died while the run was starting" in (why_no_accident(seats["worker-1"], -9) or "")
    again = Seats(workers, nobody, before=seats)
    assert [seat.incarnation for seat in again] == [1, 4]
    assert why_no_accident(again["worker-1"], -9) is None, "who went back to a checkpoint may try again"


def test_who_has_said_why_it_fails_has_failed_also_when_it_was_killed_before_it_ended() -> None:
    seat = Seat("worker-0", 0, 0, is_told_to_go=True)
    assert why_no_accident(seat, -9) is None
    seat.last_words = "RunError: the loss is nan"
    assert why_no_accident(seat, -9) == "worker-0 failed (killed by SIGKILL): RunError: the loss is nan"
