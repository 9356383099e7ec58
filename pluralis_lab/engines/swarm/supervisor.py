"""The process that owns a run's local workers: starts them, restarts them, records what they report, obeys commands.

Started by `supervisor_process`. It outlives the kernel that started it, except with ``lifetime="kernel"``, where the end of its
standard input ends it.
"""

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from pluralis_lab.engines import control
from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.resuming import MAX_TIMES_BACK, resume_version
from pluralis_lab.engines.scenario_files import first_unrecorded
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.engines.swarm import commands
from pluralis_lab.engines.swarm.door import Door
from pluralis_lab.engines.swarm.enrolment import Enrolment
from pluralis_lab.engines.swarm.epoch_closer import EpochCloser
from pluralis_lab.engines.swarm.forkclient import FORK_LOG, ForkClient, ForkServer
from pluralis_lab.engines.swarm.frames import read_json
from pluralis_lab.engines.swarm.guest_words import check_word
from pluralis_lab.engines.swarm.guests import Guests
from pluralis_lab.engines.swarm.lifeline import stdin_ended
from pluralis_lab.engines.swarm.questions import Questions
from pluralis_lab.engines.swarm.seats import Seat, Seats
from pluralis_lab.engines.swarm.turnover import Turnover
from pluralis_lab.engines.swarm.worker_exit import EXIT_LEFT
from pluralis_lab.errors import PluralisError
from pluralis_lab.store import RunDirectory
from pluralis_lab.store.checkpoints import CheckpointFolder

log = logging.getLogger(__name__)

GUEST_LIMIT_BYTES = 1 << 24
"""For one report of a worker elsewhere; those of this machine send text that people wait for, of any length."""

STOP_TIMEOUT_S = 5.0
"""A worker that has not ended so long after it was asked to is killed: nothing of it is lost, its checkpoints are on disk."""


class Supervisor:
    """Runs one run from `version` rounds on (0: from the seed) until it is stopped.

    server : the fork server, which loads its libraries meanwhile
    """

    def __init__(self, run: RunDirectory, *, version: int, granted: dict[str, str], server: ForkServer) -> None:
        self.run, self.spec, self.info = run, run.spec, run.info
        self._signer = signer_for(self.info["chain"], seed=self.spec.seed, home=run.path.parent.parent, granted=granted)
        self.guests = Guests(
            run,
            obey=self._obey,
            on_worker=self._serve_worker,
            on_exit=self._on_exit,
            on_spawned=self._on_spawned,
            start=self._spawn_attached,
        )
        self.turnover = Turnover(run, self.guests.hosts, self)
        names = [worker["name"] for worker in self.info["workers"]] if self.info.get("recorded") else []
        recorded = {name: first_unrecorded(run.worker_folder(name)) for name in names}
        self._prepare(version, Seats(self.info["workers"], self.guests.hosts, first=recorded))
        self.door = Door(self._serve_worker, self._obey, lambda *asked: self.questions.serve(*asked), self.guests.gate.invite)
        self._server = server
        self._ending = asyncio.Event()
        self._end_state = ("stopped", "")
        self._is_record_broken = False
        self._going_back: asyncio.Task[None] | None = None
        self._times_back: Counter[int] = Counter()
        self._listening: set[asyncio.Task[Any]] = set()

    def _prepare(self, version: int, seats: Seats) -> None:
        """Get ready to start all workers from `version` rounds on."""
        self.version, self.seats = version, seats
        self.recorder = Recorder(self.run, sign_epoch=self._signer.sign, clock=time.time)
        self.closer = EpochCloser(self.recorder, self._note_serving, self.fail, self.turnover.expel)
        self.questions = Questions(seats, vocab=self.info["corpus"]["vocab"])
        self.enrolment = Enrolment(self.recorder, seats, self._spawn_attached)
        self.guests.attend(seats, self.enrolment, self.recorder)
        self.turnover.attend(version, seats, self.enrolment, self.recorder, self.questions)
        self._are_founders_started = False

    async def main(self) -> int:
        """Run to the end and return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.end, "stopped", "stopped by its owner")
        await self.door.open()
        await self.guests.gate.open_again()
        # What a kernel needs to command this run, and what a sweeper needs to clean up after it.
        control.write_control(self.run, {"socket": self.door.socket, "token": self.door.token})
        self.recorder.forget_after(self.version)
        self.recorder.run_state("starting", pid=os.getpid())
        watch_stdin = asyncio.create_task(self._watch_stdin()) if self.info["lifetime"] == "kernel" else None
        self.forks = ForkClient(self._on_exit, self._on_spawned, self._on_forks_broken)
        try:
            await self._start()
            await self._ending.wait()
        except Exception as error:
            log.exception("the supervisor failed")
            self.end("failed", f"the supervisor failed: {error}")
        finally:
            if self._going_back is not None:
                await self._going_back
            await self._stop_workers()
            await self.forks.stop()
            await self.closer.finish()
            if watch_stdin is not None:
                watch_stdin.cancel()
            self.door.close()
            await self.guests.close(self._end_state[1] or "the run has ended")
            self._write_end()
        return 1 if self._end_state[0] == "failed" else 0

    def end(self, state: str, reason: str) -> None:
        """Begin to shut down; the first reason given is the one recorded."""
        if not self.is_ending:
            self._end_state = (state, reason)
            self._ending.set()

    @property
    def is_ending(self) -> bool:
        """Whether the run is shutting down."""
        return self._ending.is_set()

    @property
    def is_going_back(self) -> bool:
        """Whether all workers are being ended, to go back to a checkpoint."""
        return self._going_back is not None

    def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        """Execute a command of the run's owner and return the answer."""
        if request["op"] in ("reserve", "enrol") and (self.is_ending or self.is_going_back):
            why = "is ending, and takes nobody in" if self.is_ending else "is going back to a checkpoint; try again when it runs"
            return {"ok": False, "error": f"it {why}"}
        try:
            return commands.execute(request, self.seats, self.enrolment, self.end)
        except (PluralisError, OSError) as error:
            self._is_record_broken = True
            self.fail(f"the record could not be kept: {error}")
            return {"ok": False, "error": str(error)}

    async def _start(self) -> None:
        """Start the fork server and the workers, unless the run is ended meanwhile."""
        ending = asyncio.create_task(self._ending.wait())
        starting = asyncio.create_task(self.forks.start(self.run.path / "logs" / FORK_LOG, self._server))
        await asyncio.wait([ending, starting], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not starting.done():
            starting.cancel()
            return
        starting.result()
        self._spawn_all()

    def _spawn_all(self) -> None:
        """Start all workers, from `version`."""
        for seat in self.seats:
            # A resumed run begins with the workers that have the checkpoint; the others, and whose is damaged, join them.
            folder = CheckpointFolder(self.run.worker_folder(seat.name))
            folder.forget_after(self.version)
            seat.founding = not seat.is_remote and (self.version == 0 or folder.is_intact(self.version))
        for seat in self.seats:
            self.spawn(seat)
        self._are_founders_started = True

    def _spawn_attached(self, seat: Seat) -> None:
        """Start a process in the seat of a worker that was attached; one that came before all others is a founder."""
        if self._are_founders_started and not self.is_ending:
            self.spawn(seat)

    def spawn(self, seat: Seat) -> None:
        """Start a process in `seat`; in one whose machine is away, as soon as that comes back."""
        if seat.is_remote and seat.name not in self.guests.hosts:
            return
        on_trial = seat.is_aside
        seat.clear(version=self.version)
        self.recorder.worker_state(seat.name, "starting", at=time.time(), incarnation=seat.incarnation)
        facts: dict[str, Any] = {"incarnation": seat.incarnation, "version": self.version, "on_trial": on_trial}
        if seat.is_remote:
            self.guests.spawn(seat, facts)
            return
        facts |= {
            "name": seat.name,
            "founding": seat.founding,
            "run": str(self.run.path),
            "home": str(self.run.path.parent.parent),
            "host": seat.place.get("host") or self.info.get("host", "127.0.0.1"),
            "namespace": seat.place.get("namespace"),
            "socket": self.door.socket,
            "token": self.door.token,
        }
        self.forks.spawn(seat.name, self.run.path / "logs" / f"{seat.name}.log", facts)

    async def _watch_stdin(self) -> None:
        """End the run when whoever started it is gone."""
        await stdin_ended()
        self.end("stopped", "its kernel ended")

    async def _stop_workers(self) -> None:
        """Ask every worker to end, and kill those that do not."""
        for seat in self.seats:
            seat.say(op="stop")
        try:
            await asyncio.wait_for(asyncio.gather(self.forks.wait_for_all(), self.guests.hosts.wait_for_all()), STOP_TIMEOUT_S)
        except TimeoutError:
            for seat in self.seats:
                if seat.pid is not None:
                    log.warning("%s did not end in time and is killed", seat.name)
                    seat.kill()
                    if seat.is_remote:
                        self.guests.hosts.drop(seat.name)  # nobody can see it end; it finds its line closed
            await self.forks.wait_for_all()
        if self._listening:  # what they said last, a checkpoint that was still being written, say
            await asyncio.wait(self._listening, timeout=STOP_TIMEOUT_S)

    def _write_end(self) -> None:
        """Record how the run ended. On a full disk `control.json` stays, and whoever looks next records it (`control.sweep`)."""
        state, reason = self._end_state
        try:
            self.recorder.run_state(state, reason, pid=None)
            self.recorder.close()
        except (PluralisError, OSError):
            log.exception("the end of the run (%s: %s) could not be recorded", state, reason)
            self._end_state = ("failed", reason)
            return
        control.remove_control(self.run)

    async def _serve_worker(self, hello: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to a worker until its connection ends; one that was replaced meanwhile is not heard."""
        seats = self.seats
        seat = seats[hello["worker"]]
        if hello["incarnation"] != seat.incarnation:
            return
        seat.writer = writer
        if not seat.is_remote and (listening := asyncio.current_task()) is not None:
            self._listening.add(listening)
            listening.add_done_callback(self._listening.discard)
        if self.is_ending or self.is_going_back:
            seat.say(op="stop")
        while (message := await read_json(reader, limit_bytes=GUEST_LIMIT_BYTES if seat.is_remote else 1 << 28)) is not None:
            if seats is not self.seats:
                continue  # all have started anew, from a round before what this one speaks of
            if self._is_record_broken:
                continue  # what follows a gap must not be kept: `resuming` takes the last report for the end of a whole record
            if seat.is_remote:
                vocab = self.info["corpus"]["vocab"]
                check_word(message, worker=seat.name, run_id=self.run.id, spec=self.spec, vocab=vocab)
            self._recording(partial(self._hear, seat, message))

    def _recording(self, act: Callable[[], None]) -> None:
        """Do what writes to the record; the run ends where that cannot be written."""
        try:
            act()
        except (PluralisError, OSError) as error:
            self._is_record_broken = True
            self.fail(f"the record could not be kept: {error}")

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do what may write to the record, after so many seconds."""
        asyncio.get_running_loop().call_later(seconds, self._recording, act)

    def _hear(self, seat: Seat, message: dict[str, Any]) -> None:
        op = message["op"]
        if seat.is_aside and op not in ("report", "awake", "error", "failed", "left"):
            return  # of the others it knows nothing any more
        if op == "address":
            seat.addresses = message["addresses"]
            self.seats.lead_into_dht()
        elif op == "up":
            seat.is_up = True
            self.seats.lead_into_dht()
            self.let_go()
        elif op == "report":
            self._record(seat, message)
        elif op == "answer":
            self.questions.on_answer({key: value for key, value in message.items() if key != "op"})
        elif op == "enrolled":
            self.enrolment.on_told(seat, message["worker"])
        elif op == "suspect":
            self.turnover.on_suspect(seat, message["worker"], message["incarnation"])
        elif op == "silent":
            self.turnover.on_silent(seat, message)
        elif op == "awake":
            seat.say(op="awake")
        elif op == "error":
            self.recorder.error(message["message"], worker=seat.name)
        elif op == "failed":
            seat.last_words = message["message"]
        elif op == "left":
            seat.has_said_bye = True
            if seat.pid is None:
                self._on_end(seat, EXIT_LEFT)

    def _record(self, seat: Seat, message: dict[str, Any]) -> None:
        kind, body = message["kind"], message["body"]
        if seat.is_aside and kind != "statements":
            return  # what it used it has signed for; what it counts since is not part of any step
        if kind == "state":
            seat.take_state(body)
            body = {**body, "pid": None if seat.is_remote else seat.pid}
        elif kind == "work":
            seat.deaths_in_a_row = 0
        elif kind == "stalled":
            self.turnover.check_stage(body["stage"])
        self.recorder.report(seat.name, message["time"], kind, body)
        self.closer.close_due()
        self._note_serving()

    def _note_serving(self) -> None:
        """Note when the run has nothing left to train or to close."""
        is_done = not self.is_ending and self.recorder.is_complete and self.seats.are_trained and not self.closer.is_busy
        if is_done and self.run.info["state"] == "running":
            self.recorder.run_state("serving")

    def _on_spawned(self, name: str, pid: int) -> None:
        self.seats[name].pid = pid

    def _on_exit(self, name: str, pid: int, status: int) -> None:
        """A worker process has ended."""
        seat = self.seats[name]
        if seat.pid == pid:
            seat.pid, seat.state = None, "dead"
            if status == EXIT_LEFT and not seat.has_said_bye:
                return  # its last reports have still to be read
            self._recording(lambda: self._on_end(seat, status))

    def _on_end(self, seat: Seat, status: int) -> None:
        """A worker process has ended, and all that it had to say was heard."""
        self.door.sweep(seat.name, seat.incarnation)
        self.turnover.on_end(seat, status)

    def let_go(self) -> None:
        """Let those begin who may; with the founders the run is under way."""
        if self.seats.let_go() and self.run.info["state"] == "starting":
            self.recorder.run_state("running")

    def _on_forks_broken(self, reason: str) -> None:
        """The fork server is gone, and the kernel has killed all workers with it."""
        self.fail(f"the fork server ended and took the workers along ({reason}); run.resume() goes on from the last checkpoint")

    def go_back(self, stage: int) -> None:
        """Have all go back to the newest checkpoint, since nobody holds `stage`."""
        if self._going_back is None and not self.is_ending:
            self._going_back = asyncio.create_task(self._go_back(stage))

    async def _go_back(self, stage: int) -> None:
        """Start all workers anew, from the newest checkpoint that every stage has, as `run.resume()` would."""
        try:
            lost = f"stage {stage} had no live replica left"
            self.recorder.run_state("paused", f"{lost}; all go back to the last checkpoint")
            self.questions.end_all(f"{lost}, and all go back to the last checkpoint; ask again when the run is on")
            await self._stop_workers()
            await self.closer.finish()
            if self.is_ending:
                return
            self.recorder.close()
            # From here to the next start nothing that an earlier process said is heard: nothing is awaited in between.
            version = resume_version(self.run)
            self._times_back[version] += 1
            self._prepare(version, Seats(self.run.info["workers"], self.guests.hosts, before=self.seats))
            if self._times_back[version] > MAX_TIMES_BACK:
                self.fail(f"{lost}, {self._times_back[version]} times after round {version} without a checkpoint between them")
                return
            self.run.update_info(started_from=version)
            self.recorder.forget_after(version)
            self.recorder.run_state("starting", f"{lost}; all go on from round {version}", pid=os.getpid())
            self._spawn_all()
        except (PluralisError, OSError) as error:
            self._is_record_broken = True
            self.fail(f"{lost}, and going back to the last checkpoint failed: {error}")
        finally:
            self._going_back = None

    def fail(self, message: str, *, worker: str | None = None) -> None:
        """End the run as failed, and record why; `worker`: whose log says more."""
        if not self.is_ending:
            self.end("failed", message)
            try:
                self.recorder.error(message, worker=worker, log_tail=self.run.log_tail(worker) if worker else "")
            except (PluralisError, OSError):
                log.exception("%s, and that could not be recorded", message)
