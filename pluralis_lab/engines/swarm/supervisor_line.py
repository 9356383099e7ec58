"""A worker's line to its supervisor."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from pluralis_lab.engines.swarm.frames import json_frame, read_json
from pluralis_lab.errors import WireError

SEND_BUFFER_BYTES = 8 << 20
"""Of the socket: what is in it survives a SIGKILL of this worker, so receipts that were signed are not lost."""


class SupervisorLine:
    """Tells the supervisor what happens, and hears what it wants.

    Example
    -------
    >>> line = await SupervisorLine.open(socket_path)
    >>> line.tell(op="hello", token=token, worker="worker-0", incarnation=0)
    >>> go = await line.expect("go")
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, path: str) -> "SupervisorLine":
        """Connect to the supervisor's socket at `path`."""
        reader, writer = await asyncio.open_unix_connection(path)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        return cls(reader, writer)

    def close(self) -> None:
        self._writer.close()

    def tell(self, **message: Any) -> None:
        """Send `message`, whose "op" says what it is."""
        self._writer.write(json_frame(message))

    async def expect(self, op: str) -> dict[str, Any] | None:
        """Return the next message, which must be `op`; None when this worker is to end. Raises WireError for another one."""
        while (message := await read_json(self._reader)) is not None and message["op"] != "stop":
            if message["op"] == op:
                return message
            if message["op"] != "lost":  # the "go" that is to come names only those that are left
                raise WireError(f"the supervisor said {message['op']!r} where {op!r} was due")
        return None

    async def obey(self, handlers: Mapping[str, Callable[[dict[str, Any]], None]]) -> None:
        """Follow the supervisor until it says stop or its socket ends; `handlers` by "op" get the message."""
        while (message := await read_json(self._reader)) is not None and message["op"] != "stop":
            handlers[message["op"]](message)
