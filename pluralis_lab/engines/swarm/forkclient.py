"""The supervisor's side of the fork server: start it, have it fork workers, hear of their ends."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from pluralis_lab.errors import RunError

log = logging.getLogger(__name__)

FORK_LOG = "forkserver.log"

GLIBC_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""Arrays come and go by the megabyte, in a thread that is not the main one: by default glibc gives them back to the system, which
clears their pages when they are wanted again. A plain loop with the model of `benchmarks single`, in such a thread, had 850 page
faults a round instead of 4, and took a tenth longer (medians of five in turns, which differ by as much). What is kept, up to
256 MiB, made workers 3 % larger. Some versions of glibc accept no more than 32 MiB for arrays that are kept."""

OnExit = Callable[[str, int, int], None]
OnSpawned = Callable[[str, int], None]


class ForkServer(NamedTuple):
    """A fork server's process that loads its libraries still, our end of its socket, and what it says until it knows its log."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    early: IO[bytes]

    @classmethod
    def launch(cls, *, for_one: bool = False) -> "ForkServer":
        """Start the process, for one worker that shall be there soon, or for several.

        Not in a thread: it asks to be killed when the *thread* that forked it ends (PR_SET_PDEATHSIG).
        """
        ours, theirs = socket.socketpair()
        early = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever waits for the server
        with theirs:
            command = [sys.executable, "-m", "pluralis_lab.engines.swarm.forkserver", str(theirs.fileno()), str(os.getpid())]
            command += ["one"] if for_one else []
            # A child by subprocess, not asyncio: no child watcher may wait for processes that the server reaps itself.
            # One thread a library: a pool that a library starts on import would not survive the forks.
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            # hivemind has torch share tensors through a manager process, which a killed worker leaves; descriptors need none.
            sharing = {"HIVEMIND_MEMORY_SHARING_STRATEGY": "file_descriptor"}
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=early,
                stderr=early,
                pass_fds=[theirs.fileno()],
                env={**GLIBC_MEMORY, **os.environ, **threads, **sharing},
            )
        return cls(process, ours, early)


@contextmanager
def early_fork_server() -> Iterator[ForkServer]:
    """Have one load its libraries while the one worker that it is for finds a seat; it is gone afterwards in any case."""
    server = ForkServer.launch(for_one=True)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.control.close()
        server.early.close()


class ForkClient:
    """Starts workers through one warm process.

    on_exit : called with (worker name, process id, exit status; negative: the signal) when a worker has ended
    on_spawned : called with (worker name, process id) when it has started
    on_broken : called with the reason when the server has ended by itself, and all workers with it
    """

    def __init__(self, on_exit: OnExit, on_spawned: OnSpawned, on_broken: Callable[[str], None]) -> None:
        self._on_exit, self._on_spawned, self._on_broken = on_exit, on_spawned, on_broken
        self._names: dict[int, str] = {}
        self._num_asked = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, log: Path, server: ForkServer | None = None) -> None:
        """Start the server, or take `server`, and wait until it is warm. Raises RunError with its words when it cannot be had.

        log : where it, and what it starts, writes from then on
        """
        self._process, ours, early = server or ForkServer.launch()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        with early:
            if not await self._reader.readline():
                await asyncio.to_thread(self._process.wait)
                early.seek(0)
                said = early.read().decode(errors="replace")
                raise RunError(f"the fork server ended with status {self._process.returncode}; it said last:\n{said[-2000:]}")
        self._writer.write(json.dumps({"log": str(log)}).encode() + b"\n")
        self._listener = asyncio.create_task(self._listen())

    def spawn(self, name: str, log: Path, arguments: dict[str, Any]) -> None:
        """Have a worker started."""
        assert self._writer is not None
        self._num_asked += 1
        self._all_ended.clear()
        self._writer.write(json.dumps({"spawn": name, "log": str(log), "arguments": arguments}).encode() + b"\n")

    async def wait_for_all(self) -> None:
        """Wait until no worker runs."""
        await self._all_ended.wait()

    async def stop(self) -> None:
        """End the server; it takes workers that are left along."""
        if self._process is None:
            return
        if self._listener is not None:
            self._listener.cancel()
        else:
            self._process.kill()  # it loads its libraries still, and has forked nothing
        if self._writer is not None:
            self._writer.close()
        await asyncio.to_thread(self._process.wait)

    async def _listen(self) -> None:
        reason = "its socket closed"
        try:
            await self._hear()
        except Exception as error:  # nobody waits for this task: whatever ends it must be heard of
            log.exception("lost the fork server")
            reason = f"{type(error).__name__}: {error}"
        self._all_ended.set()
        self._on_broken(reason)

    async def _hear(self) -> None:
        while line := await self._reader.readline():
            message = json.loads(line)
            if "spawned" in message:
                self._names[message["pid"]] = message["spawned"]
                self._on_spawned(message["spawned"], message["pid"])
            else:
                name = self._names.pop(message["exited"])
                self._num_asked -= 1
                self._on_exit(name, message["exited"], message["status"])
                if self._num_asked == 0:
                    self._all_ended.set()
