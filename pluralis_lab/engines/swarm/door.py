"""The one socket of a supervisor: its workers report there, and its owner's commands come in."""

import asyncio
import hmac
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pluralis_lab.engines.swarm.frames import json_frame, read_json
from pluralis_lab.errors import WireError

log = logging.getLogger(__name__)

OnWorker = Callable[[dict[str, Any], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OnCommand = Callable[[dict[str, Any]], dict[str, Any]]
OnInvite = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
OnQuestion = Callable[[dict[str, Any], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
QUESTIONS = ("prompt", "probe")


class Door:
    """Listens in a private folder, where the workers' own sockets lie too, and lets in who has the token.

    on_worker : serves the connection of a worker until it ends; gets the worker's first message too
    on_command : returns the answer to a command
    on_question : answers a question (`QUESTIONS`) bit by bit, until it is answered or nobody listens
    on_invite : makes an invitation and returns the answer
    """

    def __init__(self, on_worker: OnWorker, on_command: OnCommand, on_question: OnQuestion, on_invite: OnInvite) -> None:
        self._on_worker, self._on_command, self._on_question = on_worker, on_command, on_question
        self._on_invite = on_invite
        self.token = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="pluralis-"))  # not in the run's folder: socket paths must be short
        self.socket = str(self.folder / "s")
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen from now on."""
        self._server = await asyncio.start_unix_server(self._accept, self.socket)
        os.chmod(self.socket, 0o600)

    def close(self) -> None:
        """Listen no longer and remove the folder."""
        if self._server is not None:
            self._server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self, worker: str, incarnation: int) -> None:
        """Remove the sockets that a worker's process has left."""
        for left in self.folder.glob(f"{worker}.{incarnation}-*"):
            left.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a worker or a command; anybody without the token is refused."""
        try:
            hello = await read_json(reader)
            if hello is None or not hmac.compare_digest(str(hello.get("token", "")), self.token):
                return
            if hello["op"] == "hello":
                await self._on_worker(hello, reader, writer)
            elif hello["op"] in QUESTIONS:
                await self._on_question(hello, reader, writer)
            elif hello["op"] == "invite":
                writer.write(json_frame(await self._on_invite(hello)))
                await writer.drain()
            else:
                writer.write(json_frame(self._on_command(hello)))
                await writer.drain()
        except (WireError, ConnectionError, KeyError) as error:
            log.warning("dropped a connection: %r", error)
        finally:
            writer.close()
