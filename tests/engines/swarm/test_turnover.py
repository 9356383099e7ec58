"""What becomes of a seat: it is filled anew, left to the others, or the run ends. The record is real; no worker is started."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import pluralis_lab as pl
from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.swarm.accusations import MOST
from pluralis_lab.engines.swarm.deaths import MAX_DEATHS_IN_A_ROW
from pluralis_lab.engines.swarm.enrolment import Enrolment
from pluralis_lab.engines.swarm.hosts import Hosts
from pluralis_lab.engines.swarm.questions import Questions
from pluralis_lab.engines.swarm.seats import Seat, Seats
from pluralis_lab.engines.swarm.turnover import Turnover
from pluralis_lab.engines.swarm.worker_exit import EXIT_ASIDE, EXIT_LEFT
from pluralis_lab.store import RunDirectory
from tests.engines.swarm.conftest import small_spec
from tests.homes import shared_home

KILLED = -int(signal.SIGKILL)


class Course:
    """A run that notes what is asked of it."""

    def __init__(self) -> None:
        self.is_ending = self.is_going_back = False
        self.started: list[tuple[str, int]] = []
        self.gone_back: list[int] = []
        self.failures: list[tuple[str, str | None]] = []
        self.times_let_go = 0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def spawn(self, seat: Seat) -> None:
        self.started.append((seat.name, seat.incarnation))
        seat.clear(version=0)
        seat.pid, seat.state = 2000 + len(self.started), "active"

    def let_go(self) -> None:
        self.times_let_go += 1

    def go_back(self, stage: int) -> None:
        self.gone_back.append(stage)

    def fail(self, message: str, *, worker: str | None = None) -> None:
        self.failures.append((message, worker))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.due.append((seconds, act))


class Run:
    """Two stages with two workers each, all of whom train: worker-0 and worker-1 the first, worker-2 and worker-3 the second."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory, self.course = directory, Course()
        self.hosts = Hosts(lambda name, pid, status: None, lambda name, pid: None, lambda name: None)
        self.turnover = Turnover(directory, self.hosts, self.course)
        self.begin(version=0)

    def begin(self, *, version: int) -> None:
        """Start all, from `version` rounds on."""
        self.recorder = Recorder(self.directory, sign_epoch=lambda name, typed: "", clock=time.time)
        self.seats = Seats(self.directory.info["workers"], self.hosts)
        enrolment = Enrolment(self.recorder, self.seats, self.course.spawn)
        self.turnover.attend(version, self.seats, enrolment, self.recorder, Questions(self.seats, vocab=256))
        self.seats.have_begun = True
        for number, seat in enumerate(self.seats):
            seat.pid, seat.state, seat.is_up, seat.is_told_to_go = 1000 + number, "active", True, True

    def die(self, name: str, status: int = KILLED) -> Seat:
        """Have the process of a worker end."""
        seat = self.seats[name]
        seat.pid, seat.state = None, "dead"
        self.turnover.on_end(seat, status)
        return seat

    def said_of(self, name: str) -> list[tuple[str, str]]:
        """Return the states that were recorded of a worker, each with its reason."""
        events = self.directory.events(kinds=["worker.state"])
        return [(event.body["state"], event.body.get("reason", "")) for event in events if event.worker == name]

    def errors(self) -> list[str]:
        return [event.body["message"] for event in self.directory.events(kinds=["error"])]


@pytest.fixture(scope="module")
def trained() -> Iterator[RunDirectory]:
    with shared_home():
        yield pl.simulate(small_spec(steps=1)).wait(timeout_s=60).stop()._directory


@pytest.fixture
def run(trained: RunDirectory, request: pytest.FixtureRequest) -> Iterator[Run]:
    copy = trained.path.parent / f"copy-{abs(hash(request.node.name))}"
    shutil.copytree(trained.path, copy)
    run = Run(RunDirectory(copy))
    yield run
    run.recorder.close()


def test_who_was_killed_starts_anew_from_what_the_others_hold(run: Run) -> None:
    run.die("worker-1")
    assert run.course.started == [("worker-1", 1)]
    assert not run.seats["worker-1"].founding
    assert run.said_of("worker-1")[-1] == ("dead", "killed by SIGKILL")


def test_the_last_of_a_stage_takes_all_back_to_a_checkpoint(run: Run) -> None:
    run.seats["worker-3"].state = "joining"  # which holds nothing yet
    run.die("worker-2")
    assert (run.course.gone_back, run.course.started) == ([1], [])


def test_who_says_why_it_fails_ends_the_run_only_where_nobody_else_has_its_stage(run: Run) -> None:
    run.seats["worker-1"].last_words = "RunError: no memory"
    run.die("worker-1", 1)
    assert run.course.failures == []
    assert run.errors() == ["worker-1 failed (exit status 1): RunError: no memory"]
    assert run.course.started == [("worker-1", 1)], "it is tried again"
    run.seats["worker-1"].state = "joining"
    run.seats["worker-0"].last_words = "RunError: no disk"
    run.die("worker-0", 1)
    assert run.course.failures == [("worker-0 failed (exit status 1): RunError: no disk", "worker-0")]


def test_a_seat_whose_processes_only_die_is_left_empty_and_nobody_waits_for_it(run: Run) -> None:
    for _ in range(MAX_DEATHS_IN_A_ROW):
        run.die("worker-1")
    assert len(run.course.started) == MAX_DEATHS_IN_A_ROW
    seat = run.die("worker-1")
    assert seat.is_given_up
    assert len(run.course.started) == MAX_DEATHS_IN_A_ROW
    assert run.course.times_let_go == 1
    assert f"died {MAX_DEATHS_IN_A_ROW + 1} times in a row" in run.errors()[-1]


def test_who_was_silent_is_tried_again_when_it_answers_and_later_each_time(run: Run) -> None:
    waited = []
    for _ in range(3):
        seat, by = run.seats["worker-1"], run.seats["worker-0"]
        said = {"worker": "worker-1", "incarnation": seat.incarnation, "reason": "no answer", "silent_s": 4.0}
        run.turnover.on_silent(by, said)
        assert seat.is_aside
        assert run.said_of("worker-1")[-1] == ("aside", "no answer for 4 s")
        run.die("worker-1", EXIT_ASIDE)
        seconds, act = run.course.due.pop()
        assert len(run.course.started) == len(waited), "not before its time"
        act()
        waited.append(seconds)
    assert waited == [0.0, 4.0, 12.0]
    assert run.course.started == [("worker-1", 1), ("worker-1", 2), ("worker-1", 3)]
    assert run.course.failures == run.course.gone_back == []


def test_nobody_is_taken_back_into_a_run_that_ends_or_goes_back_meanwhile(run: Run) -> None:
    said = {"worker": "worker-1", "incarnation": 0, "reason": "no answer", "silent_s": 4.0}
    run.turnover.on_silent(run.seats["worker-0"], said)
    run.die("worker-1", EXIT_ASIDE)
    ((_, act),) = run.course.due
    run.course.is_going_back = True
    act()
    run.course.is_going_back = False
    run.course.is_ending = True
    act()
    run.course.is_ending = False
    before = run.seats["worker-1"]
    run.recorder.close()
    run.begin(version=1)
    act()
    assert run.course.started == []
    assert before is not run.seats["worker-1"]


def test_a_stranger_to_the_stage_cannot_set_anybody_aside(run: Run) -> None:
    said = {"worker": "worker-1", "incarnation": 0, "reason": "no answer", "silent_s": 4.0}
    run.turnover.on_silent(run.seats["worker-2"], said)
    run.turnover.on_silent(run.seats["worker-0"], said | {"incarnation": 7})
    assert not run.seats["worker-1"].is_aside


def test_who_leaves_does_not_come_back_and_leaves_its_checkpoints_to_who_stays(run: Run) -> None:
    theirs = {path.name for path in run.directory.worker_folder("worker-1").glob("**/*.safetensors")}
    assert theirs, "there is something to hand over"
    assert run.seats.ask_to_leave("worker-1") is None
    run.die("worker-1", EXIT_LEFT)
    assert run.said_of("worker-1")[-1] == ("stopped", "left the run")
    assert run.seats.names == ["worker-0", "worker-2", "worker-3"]
    assert [row["name"] for row in run.directory.info["workers"] if row.get("left")] == ["worker-1"]
    assert theirs <= {path.name for path in run.directory.worker_folder("worker-0").glob("**/*.safetensors")}
    assert (run.course.started, run.course.gone_back) == ([], [])


def test_the_end_of_a_run_starts_nobody(run: Run) -> None:
    run.course.is_ending = True
    for name in run.seats.names:
        run.die(name)
        assert run.said_of(name)[-1] == ("stopped", "killed by SIGKILL")
    assert (run.course.started, run.course.gone_back, run.course.failures) == ([], [], [])


def test_a_machine_that_reaches_nobody_is_sent_away_instead_of_all_others(run: Run) -> None:
    guest, died = run.seats["worker-3"], 0
    guest.hosts = run.hosts
    for _ in range(MOST + 1):
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            run.seats["worker-0"].pid = process.pid
            run.turnover.on_suspect(guest, "worker-0", 0)
            died += process.wait(30) == KILLED
    assert died == MOST + 1, "whom it gives up the others go on without, so it starts anew"
    (error,) = run.errors()
    assert error.startswith("worker-3 cannot reach worker-0, which the others reach")


def test_who_holds_other_weights_is_ended(run: Run) -> None:
    run.turnover.expel("worker-9")
    run.seats["worker-0"].pid = None
    run.turnover.expel("worker-0")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run.seats["worker-0"].pid = process.pid
        run.turnover.expel("worker-0")
        assert process.wait(30) == KILLED
