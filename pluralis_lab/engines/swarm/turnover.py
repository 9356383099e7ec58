"""What becomes of a seat whose process ends, is silent or is wrong: who is told, and whether another process starts there."""

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.second_chances import SecondChances
from pluralis_lab.engines.swarm.accusations import Accusations
from pluralis_lab.engines.swarm.deaths import describe_end, is_beyond_help, why_no_accident
from pluralis_lab.engines.swarm.enrolment import Enrolment
from pluralis_lab.engines.swarm.hosts import Hosts
from pluralis_lab.engines.swarm.questions import Questions
from pluralis_lab.engines.swarm.seats import Seat, Seats
from pluralis_lab.engines.swarm.worker_exit import EXIT_ASIDE, EXIT_EXPELLED, EXIT_LEFT
from pluralis_lab.store import RunDirectory
from pluralis_lab.store.checkpoints import CheckpointFolder

log = logging.getLogger(__name__)


class Course(Protocol):
    """The run as a whole, which a seat can end, turn back or hold up."""

    @property
    def is_ending(self) -> bool:
        """Whether the run is shutting down, so that nothing is begun any more."""

    @property
    def is_going_back(self) -> bool:
        """Whether all workers are being ended, to go back to a checkpoint."""

    def spawn(self, seat: Seat) -> None:
        """Start a process in `seat`."""

    def let_go(self) -> None:
        """Let those begin who may."""

    def go_back(self, stage: int) -> None:
        """Have all go back to the newest checkpoint, since nobody holds `stage`."""

    def fail(self, message: str, *, worker: str | None = None) -> None:
        """End the run as failed; `worker`: whose log says more."""

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do what may write to the record, after so many seconds."""


class Turnover:
    """Fills seats anew, and has the others go on without who is in none.

    run : whose workers sit in the seats
    hosts : other people's machines
    course : the run as a whole
    """

    def __init__(self, run: RunDirectory, hosts: Hosts, course: Course) -> None:
        self._run, self._hosts, self._course = run, hosts, course
        self._second_chances = SecondChances()
        self._accusations = Accusations()
        self._version: int
        self._seats: Seats
        self._enrolment: Enrolment
        self._recorder: Recorder
        self._questions: Questions

    def attend(self, version: int, seats: Seats, enrolment: Enrolment, recorder: Recorder, questions: Questions) -> None:
        """Serve these seats from now on: all workers start, or start anew, from `version` rounds on."""
        self._version, self._seats, self._enrolment = version, seats, enrolment
        self._recorder, self._questions = recorder, questions

    @property
    def _is_over(self) -> bool:
        """Whether nobody is started in these seats any more."""
        return self._course.is_ending or self._course.is_going_back

    def on_end(self, seat: Seat, status: int) -> None:
        """Tell the others that the process in `seat` has ended, and fill the seat anew if that can help."""
        self._questions.on_head_gone(seat.name)
        self._enrolment.on_gone(seat)
        if seat.is_aside and status in (EXIT_ASIDE, EXIT_EXPELLED) and not self._is_over and not seat.is_leaving:
            seat.state = "aside"
            self._course.later(seat.waits_s, lambda: self._take_back(seat))
            return
        has_left = status == EXIT_LEFT
        self._recorder.worker_state(
            seat.name,
            "stopped" if self._is_over or has_left else "dead",
            at=time.time(),
            incarnation=seat.incarnation,
            reason="left the run" if has_left else describe_end(status),
        )
        if seat.is_leaving and not self._course.is_ending:  # also when it died before it could go: it shall not come back
            self._recorder.depart(seat.name)
            self._hand_over_checkpoints(seat)
        if self._is_over:
            return
        if seat.is_leaving:
            self._vacate(seat)
        else:
            self._replace(seat, status)

    def _vacate(self, seat: Seat) -> None:
        """Go on for good without the worker that had `seat`."""
        self._seats.tell_lost(seat)
        self._seats.vacate(seat)
        self._hosts.dismiss(seat.name, "left the run")
        self.check_stage(seat.stage)

    def _replace(self, seat: Seat, status: int) -> None:
        """Start another process in `seat`, or say why none would fare better; the run fails where nobody else has its stage."""
        seat.deaths_in_a_row += 1
        why = why_no_accident(seat, status)
        is_new_run = self._version == 0 and not self._seats.have_begun
        if why is not None and not seat.is_remote and (is_new_run or not self._seats.can_do_without(seat)):
            self._course.fail(why, worker=seat.name)
            return
        self._seats.tell_lost(seat)
        if why is not None:
            self._recorder.error(why, worker=seat.name, log_tail="" if seat.is_remote else self._run.log_tail(seat.name))
        if why is not None and seat.is_remote:  # the run is not its machine's, which may come back when that is mended
            self._send_away(seat.name, why)
        if is_beyond_help(seat) and not seat.is_remote:
            seat.is_given_up, seat.founding = True, False
            self._course.let_go()
            return
        self._start_anew(seat)

    def _hand_over_checkpoints(self, left: Seat) -> None:
        """Give who stays the checkpoints of a worker that has left: nobody will look for them in its folder.

        Not where replicas train on their own: what one has counted is in its checkpoints, and is no work of another.
        """
        stays = [seat for seat in self._seats if seat.stage == left.stage and seat is not left and not seat.is_remote]
        if stays and not left.is_remote and self._run.spec.sync_every is None:
            folder = CheckpointFolder(self._run.worker_folder(left.name))
            folder.hand_over(CheckpointFolder(self._run.worker_folder(stays[0].name)))

    def _start_anew(self, seat: Seat) -> None:
        """Start the next incarnation in `seat`, if somebody has its stage's state, or is about to begin with it."""
        if (not self._seats.have_begun and self._seats.can_do_without(seat)) or self.check_stage(seat.stage):
            seat.incarnation += 1
            seat.founding = False
            self._course.spawn(seat)

    def check_stage(self, stage: int) -> bool:
        """Have all go back to a checkpoint when nobody is left who holds `stage`: its weights are only there now."""
        if self._seats.hold(stage):
            return True
        self._course.go_back(stage)
        return False

    def on_silent(self, by: Seat, said: dict[str, Any]) -> None:
        """Have the others go on without a worker that `by`, a replica of its stage, finds silent.

        The first of two who accuse each other is believed, and the other is heard no more. The process is left as it is: it
        cannot answer now, and begins anew when it does.
        """
        seat = self._seats.accused(by, said["worker"], said["incarnation"])
        if seat is None or self._is_over:
            return
        silent_s, reason = said["silent_s"], f"{said['reason']} for {said['silent_s']:.3g} s"
        log.warning("%s is set aside by %s: %s", seat.name, by.name, reason)
        seat.set_aside(self._second_chances.wait_s(seat.name, silent_s, time.monotonic()))
        self._questions.on_head_gone(seat.name)
        self._enrolment.on_gone(seat)
        facts = {"incarnation": seat.incarnation, "reason": reason, "by": by.name, "silent_s": silent_s}
        self._recorder.worker_state(seat.name, "aside", at=time.time(), **facts)
        self._seats.tell_lost(seat)

    def _take_back(self, seat: Seat) -> None:
        """Try a worker again that was set aside, has answered and has waited its time."""
        if seat.is_aside and self._seats.get(seat.name) is seat and not self._is_over:
            self._start_anew(seat)

    def on_suspect(self, by: Seat, name: str, incarnation: int) -> None:
        """A worker cannot reach another: if that one is one of ours and lives, it must start anew, since the others went on."""
        seat = self._seats.suspected(name, incarnation)
        if seat is None or self._course.is_ending:
            return
        log.warning("%s is given up by %s; killing it", name, by.name)
        seat.kill()
        if by.is_remote and not seat.is_remote and self._accusations.are_too_many(by.name, time.monotonic()):
            self._accusations.forget(by.name)
            why = f"{by.name} cannot reach {name}, which the others reach; its machine needs a way to this machine's ports"
            self._recorder.error(why, worker=by.name)
            self._send_away(by.name, why)

    def _send_away(self, name: str, why: str) -> None:
        """Tell the machine of the worker `name` why the run does without it, and close its line."""
        self._hosts.dismiss(name, why)
        self._hosts.drop(name)

    def expel(self, name: str) -> None:
        """End a process whose weights are not those of its stage: the next one there fetches them from the others."""
        seat = self._seats.get(name)
        if seat is not None and seat.is_alive:
            log.warning("%s holds other weights than the others of stage %d; killing it", name, seat.stage)
            seat.kill()
