"""The machine of somebody who was invited: takes a seat in another's run, and keeps the worker in it going.

What the supervisor is for the workers of its own machine, but it owns no run: it starts, ends and hears as the run's gate says.
The worker's line goes through here, so that the worker is the same program on both sides.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines.invitation import Invitation
from pluralis_lab.engines.swarm.certificate import open_pinned
from pluralis_lab.engines.swarm.deaths import describe_end
from pluralis_lab.engines.swarm.forkclient import FORK_LOG, ForkClient, ForkServer
from pluralis_lab.engines.swarm.frames import frame, json_frame, read_frame, read_json
from pluralis_lab.engines.swarm.gate_words import Spawn, Welcome, proof_text
from pluralis_lab.engines.swarm.lifeline import stdin_ended
from pluralis_lab.engines.swarm.visit import Visit
from pluralis_lab.errors import RunError, WireError

log = logging.getLogger(__name__)

RETURN_FOR_S = 600.0
"""A run whose supervisor is out of reach for longer will hardly come back: whoever joined can come again by hand."""
RETRY_S = 2.0
LINE_LIMIT_BYTES = 1 << 28
_FOLDER = "pluralis-join-"

Tell = Callable[[str], None]


class Joiner:
    """Brings one worker into the run of `invitation`, and returns when it has left or the run has ended.

    choose : takes a seat for the first time, with whatever has to be asked and signed; see `pluralis_lab.joining`
    home : where corpora are kept
    host : this machine's address for the other workers; None: the one that leads to the gate
    tied : whether to go when standard input ends, and so with the process that started this one, however that ends
    tell : called with each thing that whoever waits may want to know
    server : starts the worker, and loads its libraries already
    """

    def __init__(
        self,
        invitation: Invitation,
        choose: Callable[[], Awaitable[tuple["Gateway", Visit]]],
        *,
        home: Path,
        host: str | None,
        tied: bool,
        tell: Tell,
        server: ForkServer | None = None,
    ) -> None:
        self._tied, self._server = tied, server
        self.invitation, self._choose, self._home, self._host, self._tell = invitation, choose, home, host, tell
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))  # not in the home: socket paths must be short
        self._visit: Visit | None = None
        self._gateway: Gateway | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self._farewells: set[asyncio.Task[None]] = set()
        self._pid: int | None = None
        self._ended = asyncio.Event()
        self._why_ended = ""
        self._is_leaving = False

    async def run(self) -> str:
        """Stay until it is over, and return why it is.

        Raises
        ------
        RunError : the run cannot be reached or does not take this worker
        """
        forks = self._forks = ForkClient(self._on_exit, self._on_spawned, self._on_forks_broken)
        warming = asyncio.create_task(forks.start(self._folder / FORK_LOG, self._server))  # torch loads while a seat is found
        local = await asyncio.start_unix_server(self._carry_line, self._folder / "s")
        watching = asyncio.create_task(self._watch_stdin()) if self._tied else None
        try:
            self._gateway, self._visit = await self._choose()
            for number in (signal.SIGINT, signal.SIGTERM):  # from here on there is something to leave in order
                asyncio.get_running_loop().add_signal_handler(number, self._leave)
            await warming
            while not self._ended.is_set():
                await self._obey()
                if not self._ended.is_set():
                    await self._come_back()
            return self._why_ended
        finally:
            await _end(warming)
            if watching is not None:
                await _end(watching)
            await forks.stop()
            local.close()
            if self._gateway is not None:
                self._gateway.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _come_back(self) -> None:
        """Try to reach the run again; the worker's process has ended with its line."""
        self._tell("the run is out of reach; trying again")
        end = time.monotonic() + RETURN_FOR_S
        while not self._ended.is_set():
            try:
                self._gateway = await self._open_again()
            except (OSError, WireError) as error:
                if time.monotonic() > end:
                    raise RunError(f"run {self.invitation.run[:8]} was out of reach for {RETURN_FOR_S:.0f} s: {error}") from None
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), RETRY_S)
            else:
                self._tell("back at the run")
                return

    async def _watch_stdin(self) -> None:
        await stdin_ended()
        self._end("whoever started it has ended")

    async def _open_again(self) -> "Gateway":
        """Open a connection and take the seat again. Raises RunError when the run has it no more."""
        assert self._visit is not None
        gateway = await Gateway.open(self.invitation)
        try:
            await gateway.prove(self._visit.worker, self._visit.key)
        except BaseException:
            gateway.close()
            raise
        return gateway

    async def _obey(self) -> None:
        """Do what the run says until the connection or the visit ends."""
        assert self._gateway is not None
        hearing = asyncio.create_task(self._hear_all(self._gateway))
        ending = asyncio.create_task(self._ended.wait())
        await asyncio.wait([hearing, ending], return_when=asyncio.FIRST_COMPLETED)
        for task in (hearing, ending):
            await _end(task)
        self._kill()  # of a worker whose run is gone nothing is wanted any more
        await self._forks.wait_for_all()
        await asyncio.gather(*self._lines, *self._farewells, return_exceptions=True)
        self._gateway.close()

    async def _hear_all(self, gateway: "Gateway") -> None:
        while (message := await gateway.hear()) is not None:
            op = message.get("op")
            if op == "spawn":
                self._spawn(Spawn.read(message))
            elif op == "kill":
                self._kill()
            elif op == "end":
                self._end(str(message.get("reason"))[:500])
            else:
                raise WireError(f"the run said {str(op)[:20]!r}, which this version does not know")

    def _spawn(self, spawn: Spawn) -> None:
        """Start the worker's process."""
        assert self._visit is not None
        assert self._gateway is not None
        visit = self._visit
        visit.directory.update_info(workers=[row.model_dump(exclude_none=True) for row in spawn.workers])
        arguments = {
            "name": visit.worker,
            "incarnation": spawn.incarnation,
            "founding": False,
            "version": spawn.version,
            "on_trial": spawn.on_trial,
            "run": str(visit.directory.path),
            "home": str(self._home),
            "host": self._host or self._gateway.local_host,
            "socket": str(self._folder / "s"),
            "token": spawn.token,
        }
        self._forks.spawn(visit.worker, visit.directory.path / "logs" / f"{visit.worker}.log", arguments)

    def _on_spawned(self, name: str, pid: int) -> None:
        self._pid = pid
        self._say(op="spawned", pid=pid)

    def _on_exit(self, name: str, pid: int, status: int) -> None:
        if pid != self._pid:
            return
        self._pid = None
        log.info("%s: %s", name, describe_end(status))
        farewell = asyncio.create_task(self._say_exited(pid, status, list(self._lines)))
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    async def _say_exited(self, pid: int, status: int, lines: list["asyncio.Task[None]"]) -> None:
        """Tell the run that the process has ended, behind the last that it has reported itself."""
        await asyncio.gather(*lines, return_exceptions=True)
        self._say(op="exited", pid=pid, status=status)

    def _on_forks_broken(self, reason: str) -> None:
        self._end(f"the process that starts the worker ended ({reason})")

    def _say(self, **message: Any) -> None:
        if self._gateway is not None:
            self._gateway.say(**message)

    def _kill(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _leave(self) -> None:
        """Leave in order when asked for the first time, at once when asked again."""
        if self._is_leaving or self._pid is None:
            self._end("left at once; what it had begun the others do again")
            return
        self._is_leaving = True
        self._tell("leaving: finishing what was begun (once more to leave at once)")
        self._say(op="leave")

    def _end(self, why: str) -> None:
        if not self._ended.is_set():
            self._why_ended = why
            self._ended.set()

    async def _carry_line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a worker's line to the gate and back until one of them ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        far_writer: asyncio.StreamWriter | None = None
        try:
            invitation = self.invitation
            far_reader, far_writer = await open_pinned(invitation.host, invitation.port, invitation.fingerprint)
            assert self._visit is not None
            back = asyncio.create_task(_carry(far_reader, writer, lambda data: None))
            await _carry(reader, far_writer, self._visit.progress.look)
            far_writer.close()
            await _end(back)
        except (OSError, WireError) as error:
            log.warning("the worker's line is cut: %s", error)
        finally:
            self._lines.discard(task)
            writer.close()
            if far_writer is not None:
                far_writer.close()


class Gateway:
    """A connection to a run's gate."""

    def __init__(self, run: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._run, self._reader, self._writer = run, reader, writer

    @classmethod
    async def open(cls, invitation: Invitation) -> "Gateway":
        """Connect. Raises OSError when nobody listens there, WireError when it is not who has invited."""
        return cls(invitation.run, *await open_pinned(invitation.host, invitation.port, invitation.fingerprint))

    @property
    def local_host(self) -> str:
        """This machine's address on the way to the gate."""
        return str(self._writer.get_extra_info("sockname")[0])

    def say(self, **message: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(json_frame(message))

    async def hear(self) -> dict[str, Any] | None:
        """Return the next message, None at the end."""
        return await read_json(self._reader, limit_bytes=1 << 24)

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Say something and return the answer. Raises RunError when that is a refusal, WireError when there is none."""
        self.say(**message)
        answer = await self.hear()
        if answer is None:
            raise WireError(f"run {self._run[:8]} hung up")
        if not answer.get("ok"):
            raise RunError(f"run {self._run[:8]}: {str(answer.get('error'))[:500]}")
        return answer

    async def prove(self, worker: str, key: HotKey) -> Welcome:
        """Come back to a seat that this machine has the key of. Raises RunError when the run has it no more."""
        nonce = str((await self.ask(op="join", worker=worker))["nonce"])
        signature = key.sign(proof_text(self._run, worker, nonce))
        return Welcome.read((await self.ask(op="prove", signature=signature)).get("facts"), run_id=self._run)

    def close(self) -> None:
        self._writer.close()


def _sweep() -> None:
    """Remove what joiners left that were killed: their sockets."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]) -> None:
    """Pass frames on until one side ends; `look` sees each."""
    while (data := await read_frame(reader, limit_bytes=LINE_LIMIT_BYTES)) is not None:
        look(data)
        writer.write(frame(data))
        await writer.drain()
    writer.close()


async def _end(task: "asyncio.Task[Any]") -> None:
    """Cancel `task` if it still runs, and raise what it raised."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
