"""The process that owns a run's local workers: starts them, restarts them, records what they report, obeys commands.

``python -m pluralis_lab.engines.swarm.supervisor RUN_DIRECTORY [VERSION]``. It outlives the kernel that started it, except with
``lifetime="kernel"``, where the end of its standard input ends it.
"""

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pluralis_lab.engines import control
from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.signers import granted_on_stdin, signer_for
from pluralis_lab.engines.swarm.forkclient import ForkClient
from pluralis_lab.engines.swarm.frames import json_frame, read_json
from pluralis_lab.engines.swarm.worker_exit import EXIT_EXPELLED
from pluralis_lab.errors import PluralisError, WireError
from pluralis_lab.store import RunDirectory

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
"""A worker that has not ended so long after it was asked to is killed: nothing of it is lost, its checkpoints are on disk."""

MAX_DEATHS_IN_A_ROW = 5
"""Deaths of one worker without a finished round between them, after which the machine, not chance, is the reason."""


@dataclass
class Seat:
    """A worker slot and the process in it."""

    name: str
    number: int
    stage: int
    incarnation: int = 0
    founding: bool = True
    pid: int | None = None
    writer: asyncio.StreamWriter | None = None
    addresses: list[str] = field(default_factory=list)
    is_up: bool = False
    is_told_to_go: bool = False
    since: int | None = None
    state: str = "starting"
    deaths_in_a_row: int = 0

    @property
    def holds_state(self) -> bool:
        """Whether this worker has its stage's weights and takes part."""
        return self.pid is not None and self.state in ("active", "serving")


class Supervisor:
    """Runs one run from `version` rounds on (0: from the seed) until it is stopped."""

    def __init__(self, run: RunDirectory, *, version: int, granted: dict[str, str]) -> None:
        self.run, self.version = run, version
        self.spec, self.info = run.spec, run.info
        signer = signer_for(self.info["chain"], seed=self.spec.seed, home=run.path.parent.parent, granted=granted)
        self.recorder = Recorder(run, sign_epoch=signer.sign, clock=time.time)
        self.seats = {
            worker["name"]: Seat(worker["name"], number, worker["stage"]) for number, worker in enumerate(self.info["workers"])
        }
        self.token = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="pluralis-"))  # not in the run's folder: socket paths must be short
        self.socket = str(self.folder / "s")
        self._ending = asyncio.Event()
        self._end_state = ("stopped", "")
        self._closing: asyncio.Task[None] | None = None
        self._lost_told: set[tuple[str, int]] = set()

    async def main(self) -> int:
        """Run to the end and return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.end, "stopped", "stopped by its owner")
        server = await asyncio.start_unix_server(self._accept, self.socket)
        os.chmod(self.socket, 0o600)
        self._write_control()
        if self.version:
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
            await self._stop_workers()
            await self.forks.stop()
            if self._closing is not None:
                await self._closing
            server.close()
            if watch_stdin is not None:
                watch_stdin.cancel()
            shutil.rmtree(self.folder, ignore_errors=True)
            self._write_end()
        return 1 if self._end_state[0] == "failed" else 0

    async def _start(self) -> None:
        """Start the fork server and the workers, unless the run is ended meanwhile."""
        ending = asyncio.create_task(self._ending.wait())
        starting = asyncio.create_task(self.forks.start(self.run.path / "logs" / "forkserver.log"))
        await asyncio.wait([ending, starting], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not starting.done():
            starting.cancel()
            return
        starting.result()
        self._choose_founders()
        for seat in self.seats.values():
            self._spawn(seat)

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

    def _on_forks_broken(self, reason: str) -> None:
        """The fork server is gone, and the kernel has killed all workers with it."""
        self._fail(f"the fork server ended and took the workers along ({reason}); run.resume() goes on from the last checkpoint")

    def end(self, state: str, reason: str) -> None:
        """Begin to shut down; the first reason given is the one recorded."""
        if not self._ending.is_set():
            self._end_state = (state, reason)
            self._ending.set()

    def _write_control(self) -> None:
        """Write what a kernel needs to command this run, and what a sweeper needs to clean up after it."""
        control.write_control(self.run, {"socket": self.socket, "token": self.token})

    def _choose_founders(self) -> None:
        """On a resume, begin with the workers that have the checkpoint; the others join them."""
        from pluralis_lab.store.checkpoints import CheckpointFolder

        for seat in self.seats.values():
            folder = CheckpointFolder(self.run.worker_folder(seat.name))
            seat.founding = self.version == 0 or self.version in folder.versions()

    def _spawn(self, seat: Seat) -> None:
        """Start a process in `seat`."""
        seat.writer, seat.is_up, seat.is_told_to_go, seat.addresses = None, False, False, []
        seat.state, seat.since = "starting", self.version if seat.founding else None
        arguments = {
            "name": seat.name,
            "number": seat.number,
            "incarnation": seat.incarnation,
            "founding": seat.founding,
            "version": self.version,
            "run": str(self.run.path),
            "home": str(self.run.path.parent.parent),
            "socket": self.socket,
            "token": self.token,
        }
        self.recorder.worker_state(seat.name, "starting", at=time.time(), incarnation=seat.incarnation)
        self.forks.spawn(seat.name, self.run.path / "logs" / f"{seat.name}.log", arguments)

    async def _watch_stdin(self) -> None:
        """End the run when whoever started it is gone, also after SIGKILL."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        self.end("stopped", "its kernel ended")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a worker or a command; anybody without the token is refused."""
        try:
            hello = await read_json(reader)
            if hello is None or not hmac.compare_digest(str(hello.get("token", "")), self.token):
                return
            if hello["op"] == "hello":
                await self._serve_worker(hello, reader, writer)
            else:
                writer.write(json_frame(self._command(hello)))
                await writer.drain()
        except (WireError, ConnectionError, KeyError) as error:
            log.warning("dropped a connection: %r", error)
        finally:
            writer.close()

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        """Execute a command of the run's owner."""
        if request["op"] == "stop":
            self.end("stopped", request.get("reason", "stopped by its owner"))
            return {"ok": True}
        if request["op"] == "kill":
            seat = self.seats.get(str(request.get("worker")))
            if seat is None:
                return {"ok": False, "error": f"no worker {request.get('worker')!r}; there are {', '.join(self.seats)}"}
            if seat.pid is None:
                return {"ok": False, "error": f"{seat.name} is not running"}
            os.kill(seat.pid, signal.SIGKILL)
            return {"ok": True, "pid": seat.pid}
        if request["op"] == "status":
            return {"ok": True, "workers": {seat.name: {"pid": seat.pid, "state": seat.state} for seat in self.seats.values()}}
        return {"ok": False, "error": f"unknown command {request['op']!r}"}

    async def _serve_worker(self, hello: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seat = self.seats[hello["worker"]]
        if hello["incarnation"] != seat.incarnation:
            return
        seat.writer = writer
        if self._ending.is_set():
            self._say(seat, op="stop")
        while (message := await read_json(reader, limit_bytes=1 << 28)) is not None:
            try:
                self._hear(seat, message)
            except (PluralisError, OSError) as error:
                self._fail(f"the record could not be kept: {error}")

    def _hear(self, seat: Seat, message: dict[str, Any]) -> None:
        op = message["op"]
        if op == "address":
            seat.addresses = message["addresses"]
            self._bootstrap()
        elif op == "up":
            seat.is_up = True
            self._bootstrap()
            self._go()
        elif op == "report":
            self._record(seat, message)
        elif op == "suspect":
            self._check_suspect(message["worker"], message["incarnation"])
        elif op == "error":
            self.recorder.error(message["message"], worker=seat.name)

    def _bootstrap(self) -> None:
        """Bring workers into the DHT: the first alone, the others through those that are in it."""
        inside = [seat for seat in self.seats.values() if seat.is_up]
        waiting = [
            seat for seat in self.seats.values() if seat.addresses and seat.writer and seat.state == "starting" and not seat.is_up
        ]
        if not inside:
            waiting = waiting[:1] if not any(seat.state == "bootstrapping" for seat in self.seats.values()) else []
        for seat in waiting:
            seat.state = "bootstrapping"
            self._say(seat, op="bootstrap", addresses=[address for other in inside for address in other.addresses])

    def _go(self) -> None:
        """Let workers begin: the founders when all of them are up, a later one at once."""
        founders = [seat for seat in self.seats.values() if seat.founding]
        if not all(seat.is_up for seat in founders if seat.incarnation == 0):
            return
        up = [seat for seat in self.seats.values() if seat.is_up]
        for seat in up:
            if not seat.is_told_to_go:
                seat.is_told_to_go = True
                known = {other.name: {"incarnation": other.incarnation, "since": other.since} for other in up}
                self._say(seat, op="go", peers=known)
        if self.run.info["state"] == "starting":
            self.recorder.run_state("running")

    def _record(self, seat: Seat, message: dict[str, Any]) -> None:
        kind, body, at = message["kind"], message["body"], message["time"]
        if kind == "state":
            seat.state = body["state"]
            if seat.state in ("active", "serving"):
                seat.since = body["round"] if seat.since is None else seat.since
            body = {**body, "pid": seat.pid}
        elif kind == "work":
            seat.deaths_in_a_row = 0
        elif kind == "stalled":
            self._check_stage(body["stage"])
        self.recorder.report(seat.name, at, kind, body)
        self._advance()

    def _advance(self) -> None:
        """Close epochs that are complete, and note when the run has nothing left to train."""
        if self._closing is None and self.recorder.epochs_to_close():
            self._closing = asyncio.create_task(self._close_epochs())
        live = [seat for seat in self.seats.values() if seat.pid is not None]
        is_done = self.recorder.is_complete and live and all(seat.state == "serving" for seat in live)
        if is_done and self._closing is None and self.run.info["state"] == "running":
            self.recorder.run_state("serving")

    async def _close_epochs(self) -> None:
        """Close what is due, one epoch after the other; the arithmetic runs in a thread."""
        try:
            while epochs := self.recorder.epochs_to_close():
                closed = await asyncio.to_thread(self.recorder.close_epoch, epochs[0])
                self.recorder.write_close(closed, at=time.time())
            self._closing = None
            if not self._ending.is_set():
                self._advance()
        except (PluralisError, OSError) as error:
            self._fail(f"an epoch could not be closed: {error}")
        finally:
            self._closing = None

    def _on_exit(self, name: str, pid: int, status: int) -> None:
        """A worker process has ended: tell the others, and start the slot anew if that can help."""
        seat = self.seats[name]
        if seat.pid != pid:
            return
        seat.pid, seat.state = None, "dead"
        for left in self.folder.glob(f"{name}.{seat.incarnation}-*"):
            left.unlink(missing_ok=True)
        reason = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        ending = self._ending.is_set()
        self.recorder.worker_state(
            name, "stopped" if ending else "dead", at=time.time(), incarnation=seat.incarnation, reason=reason
        )
        if ending:
            return
        if status not in (0, EXIT_EXPELLED) and status > 0:
            self._fail(f"{name} failed ({reason})", worker=name)
            return
        seat.deaths_in_a_row += 1
        if seat.deaths_in_a_row > MAX_DEATHS_IN_A_ROW:
            self._fail(f"{name} died {seat.deaths_in_a_row} times in a row ({reason}); is memory short?", worker=name)
            return
        if not seat.is_told_to_go and seat.founding and seat.incarnation == 0:
            self._fail(f"{name} died while the run was starting ({reason})", worker=name)
            return
        self._tell_lost(seat)
        if not self._check_stage(seat.stage):
            return
        seat.incarnation += 1
        seat.founding = False
        self._spawn(seat)

    def _on_spawned(self, name: str, pid: int) -> None:
        self.seats[name].pid = pid

    def _tell_lost(self, lost: Seat) -> None:
        if (lost.name, lost.incarnation) not in self._lost_told:
            self._lost_told.add((lost.name, lost.incarnation))
            for seat in self.seats.values():
                if seat.name != lost.name:
                    self._say(seat, op="lost", worker=lost.name, incarnation=lost.incarnation)

    def _check_suspect(self, name: str, incarnation: int) -> None:
        """A worker cannot reach another: if that one is one of ours and lives, it must start anew, since the others went on."""
        seat = self.seats.get(name)
        if seat is not None and seat.incarnation == incarnation and seat.pid is not None and not self._ending.is_set():
            if psutil.pid_exists(seat.pid) and psutil.Process(seat.pid).status() != psutil.STATUS_ZOMBIE:
                log.warning("%s is given up by the others; killing it", name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(seat.pid, signal.SIGKILL)

    def _check_stage(self, stage: int) -> bool:
        """Fail the run when nobody is left who holds `stage`: its weights are only in checkpoints now."""
        if any(seat.holds_state for seat in self.seats.values() if seat.stage == stage):
            return True
        self._fail(f"stage {stage} has no live replica left; run.resume() goes on from the last checkpoint")
        return False

    def _fail(self, message: str, *, worker: str | None = None) -> None:
        if not self._ending.is_set():
            self.end("failed", message)
            try:
                self.recorder.error(message, worker=worker, log_tail=self.run.log_tail(worker) if worker else "")
            except (PluralisError, OSError):
                log.exception("%s, and that could not be recorded", message)

    def _say(self, seat: Seat, **message: Any) -> None:
        if seat.writer is not None and not seat.writer.is_closing():
            seat.writer.write(json_frame(message))

    async def _stop_workers(self) -> None:
        """Ask every worker to end, and kill those that do not."""
        for seat in self.seats.values():
            self._say(seat, op="stop")
        try:
            await asyncio.wait_for(self.forks.wait_for_all(), STOP_TIMEOUT_S)
        except TimeoutError:
            for seat in self.seats.values():
                if seat.pid is not None:
                    log.warning("%s did not end in time and is killed", seat.name)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(seat.pid, signal.SIGKILL)
            await self.forks.wait_for_all()


def main() -> int:
    """Start from the command line."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run = RunDirectory(sys.argv[1])
    control.own(run)
    version = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    granted = granted_on_stdin()

    async def start() -> int:
        return await Supervisor(run, version=version, granted=granted).main()

    return asyncio.run(start())


if __name__ == "__main__":
    sys.exit(main())
