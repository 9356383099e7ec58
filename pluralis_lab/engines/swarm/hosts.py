"""Other people's machines, as a supervisor sees them: each runs one worker of this run and says when that has ended.

What `ForkClient` is for the workers of this machine.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from pluralis_lab.engines.swarm.frames import json_frame, read_json
from pluralis_lab.engines.swarm.worker_exit import EXIT_AWAY
from pluralis_lab.errors import WireError

SHOWN_OF_A_WORKER = ("name", "stage", "replica", "participant", "key", "device", "data")
OnExit = Callable[[str, int, int], None]
OnSpawned = Callable[[str, int], None]

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine without power says nothing: the kernel asks after 10 s of silence, and gives up 15 s later."""


class Hosts:
    """The machines that have joined, by the name of the worker that each runs.

    on_exit : called with (worker name, process id there, exit status) when a worker has ended, or its machine is out of reach
    on_spawned : called with (worker name, process id there) when it has started
    on_leave : called with the worker's name when whoever runs it wants it to leave
    """

    def __init__(self, on_exit: OnExit, on_spawned: OnSpawned, on_leave: Callable[[str], None]) -> None:
        self._on_exit, self._on_spawned, self._on_leave = on_exit, on_spawned, on_leave
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._running: dict[str, int] = {}
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    def __contains__(self, name: str) -> bool:
        return name in self._writers

    def seat(self, name: str, writer: asyncio.StreamWriter) -> None:
        """Take the machine of `name`, which has proved that it is that worker's.

        One that comes back while its old connection still seems to be there replaces it.
        """
        _watch_link(writer)
        self.drop(name)
        self._writers[name] = writer

    async def listen(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to the machine of `name` until it is gone."""
        try:
            while (message := await read_json(reader, limit_bytes=1 << 16)) is not None and self._writers.get(name) is writer:
                self._hear(name, message)
        finally:
            if self._writers.get(name) is writer:
                self.drop(name)

    def spawn(self, name: str, workers: list[dict[str, Any]], **arguments: Any) -> None:
        """Have the worker started; `workers` are the run's, as `run.json` lists them."""
        self._running[name] = 0
        self._all_ended.clear()
        rows = [{key: row[key] for key in SHOWN_OF_A_WORKER if key in row} for row in workers]
        self._say(name, op="spawn", worker=name, workers=rows, **arguments)

    def kill(self, name: str) -> None:
        """Have the worker's process killed."""
        self._say(name, op="kill")

    def dismiss(self, name: str, reason: str) -> None:
        """Tell the machine of `name` that it is not needed any more, and why."""
        self._say(name, op="end", reason=reason)

    def drop(self, name: str) -> None:
        """Hear and tell the machine of `name` no more; what it ran counts as ended."""
        writer = self._writers.pop(name, None)
        if writer is not None:
            writer.close()
        self._end(name, EXIT_AWAY)

    async def wait_for_all(self) -> None:
        """Wait until no worker runs anywhere."""
        await self._all_ended.wait()

    def close(self, reason: str) -> None:
        """Tell everybody that the run has ended."""
        for name in list(self._writers):
            self.dismiss(name, reason)
            self.drop(name)

    def _hear(self, name: str, message: dict[str, Any]) -> None:
        """Take what a machine says. Raises WireError for what it cannot say."""
        op, pid, status = message.get("op"), message.get("pid"), message.get("status")
        if op == "leave":
            self._on_leave(name)
        elif op == "spawned" and type(pid) is int and pid > 0 and self._running.get(name) == 0:
            self._running[name] = pid
            self._on_spawned(name, pid)
        elif op == "exited" and type(status) is int and abs(status) < 256 and self._running.get(name):
            self._end(name, status)
        else:
            raise WireError(f"the machine of {name} said {str(message)[:80]}, which is nothing to say now")

    def _end(self, name: str, status: int) -> None:
        pid = self._running.pop(name, None)
        if not self._running:
            self._all_ended.set()
        if pid is not None:
            self._on_exit(name, pid, status)

    def _say(self, name: str, **message: Any) -> None:
        writer = self._writers.get(name)
        if writer is not None and not writer.is_closing():
            writer.write(json_frame(message))


def _watch_link(writer: asyncio.StreamWriter) -> None:
    """Have the kernel notice when the other machine is gone without a word."""
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        with contextlib.suppress(AttributeError):  # named otherwise on macOS
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
