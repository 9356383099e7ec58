"""The gate of a run: where workers from elsewhere come in, over TLS, with an invitation or with the key they have got here.

Unlike the `Door`, which serves this machine's owner, it takes no command. Whoever knocks says
``{"op": "join", "secret", "worker"}``: with an invitation's secret it is told what the run is, asks for a seat (`reserve`), has
its participant's account authorise a key for it and takes it (`enrol`); with a worker's name it proves that it has its key
(``{"op": "prove", "signature"}``). Then the connection is the worker's machine's (`Hosts`). The worker's own line, with the token
that it was started with, comes in here too.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from pluralis_lab.chain.shown import public_url
from pluralis_lab.contributions.attestation import load_encoder
from pluralis_lab.contributions.keys import recover
from pluralis_lab.engines.invitation import Invitation, InvitationBook
from pluralis_lab.engines.swarm.certificate import gate_certificate, server_context
from pluralis_lab.engines.swarm.frames import json_frame, read_json
from pluralis_lab.engines.swarm.gate_words import proof_text
from pluralis_lab.errors import EvidenceError, RunError, WireError
from pluralis_lab.store import RunDirectory

log = logging.getLogger(__name__)

STRANGER_LIMIT_BYTES = 1 << 16
STRANGER_TIMEOUT_S = 30.0
"""For each word of one who has no seat yet; signing can take a passphrase, so an enrolment may take `ENROL_TIMEOUT_S`."""
ENROL_TIMEOUT_S = 600.0
FAREWELL_TIMEOUT_S = 2.0
"""For a machine to take the last that it is told; one that is out of reach takes nothing."""
MAX_STRANGERS = 64
"""Connections of those who have no seat yet."""

PUBLIC_FACTS = ("id", "spec_hash", "founder", "created", "corpus", "stage_parameters", "model_parameters", "participants")

OnWorker = Callable[[dict[str, Any], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OnSeated = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Gate:
    """Listens where the run's host address is reachable, once somebody was invited.

    obey : executes `reserve`, `release` and `enrol` and returns the answer
    on_worker : serves the line of a worker until it ends
    on_seated : serves the connection of a worker's machine until it ends, called with the worker's name
    line_token : returns the token that a worker's process was started with, None for one that has no process elsewhere
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        obey: Callable[[dict[str, Any]], dict[str, Any]],
        on_worker: OnWorker,
        on_seated: OnSeated,
        line_token: Callable[[str], str | None],
    ) -> None:
        self._run, self._obey, self._on_worker, self._on_seated = run, obey, on_worker, on_seated
        self._line_token = line_token
        self._book = InvitationBook(run.path / "invitations.json")
        self._file = run.path / "gate.pem"
        self._host = str(run.info.get("host", "127.0.0.1"))
        self._server: asyncio.Server | None = None
        self._loading: asyncio.Task[None] | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._strangers: set[asyncio.StreamWriter] = set()

    async def open_again(self) -> None:
        """Listen where an earlier supervisor of this run did, if it did."""
        if self._book.exists:
            await self._listen()

    async def invite(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make an invitation for "seats" workers, at "stage" or anywhere, that holds "for_hours", and return its text."""
        try:
            stage, stages = request.get("stage"), self._run.spec.stages
            if stage is not None and (type(stage) is not int or stage not in range(stages)):
                raise RunError(f"stage={stage!r}; the run has the stages 0 to {stages - 1}")
            await self._listen()
            secret = self._book.add(seats=request.get("seats", 1), stage=stage, for_hours=request.get("for_hours", 24))
        except (RunError, OSError) as error:
            return {"ok": False, "error": str(error)}
        invitation = Invitation(self._run.id, self._host, self._book.port, gate_certificate(self._file), secret)
        return {"ok": True, "invitation": str(invitation)}

    async def close(self) -> None:
        """Listen no longer, and end the connections that are open."""
        if self._server is not None:
            self._server.close()
        if not self._serving:
            return
        for writer in self._serving.values():
            writer.close()
        _, silent = await asyncio.wait(self._serving, timeout=FAREWELL_TIMEOUT_S)
        for task in silent:
            self._serving[task].transport.abort()
        await asyncio.gather(*silent, return_exceptions=True)

    async def _listen(self) -> None:
        """Open the gate, at the port that earlier invitations name. Raises RunError when that is taken."""
        if self._server is not None:
            return
        gate_certificate(self._file)
        port = self._book.port
        try:
            self._server = await asyncio.start_server(self._accept, self._host, port, ssl=server_context(self._file))
        except OSError as error:
            raise RunError(
                f"nobody can be let in at {self._host}, port {port or 'any'}: {error.strerror or error}; end what listens there"
            ) from None
        self._book.note_port(self._server.sockets[0].getsockname()[1])
        self._loading = asyncio.create_task(asyncio.to_thread(load_encoder))  # or whoever comes first would wait for that

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._strangers) >= MAX_STRANGERS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        self._strangers.add(writer)
        try:
            hello = await _hear(reader, STRANGER_TIMEOUT_S)
            if hello.get("op") == "hello":
                self._check_line(hello)
                self._strangers.discard(writer)
                await self._on_worker(hello, reader, writer)
                return
            name = await self._admit(hello, reader, writer)
            self._strangers.discard(writer)
            await self._on_seated(name, reader, writer)
        except (RunError, EvidenceError) as error:
            writer.write(json_frame({"ok": False, "error": str(error)}))
        except (WireError, TimeoutError, OSError) as error:
            log.warning("dropped a connection from %s: %r", writer.get_extra_info("peername"), error)
        finally:
            self._strangers.discard(writer)
            del self._serving[task]
            writer.close()

    def _check_line(self, hello: dict[str, Any]) -> None:
        """Raise WireError unless `hello` is of a worker that was started elsewhere, with the token it was given."""
        name, token = hello.get("worker"), hello.get("token")
        expected = self._line_token(name) if isinstance(name, str) else None
        if expected is None or type(hello.get("incarnation")) is not int or not hmac.compare_digest(str(token), expected):
            raise WireError("a line of no worker that this run has elsewhere")

    async def _admit(self, hello: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Return the name of the worker whose machine this is. Raises RunError, EvidenceError, WireError when it is nobody's."""
        if hello.get("op") != "join":
            raise WireError(f"{str(hello.get('op'))[:20]!r} is nothing to say at a gate")
        if hello.get("worker") is not None:
            name = await self._recognise(hello["worker"], reader, writer)
            writer.write(json_frame({"ok": True, "facts": self._facts()}))
            return name
        entry = self._book.find(hello.get("secret"))
        writer.write(json_frame({"ok": True, "facts": self._facts()}))
        reserved: str | None = None
        try:
            while True:
                request = await _hear(reader, ENROL_TIMEOUT_S)
                if request.get("op") == "reserve" and reserved is None:
                    stages = request.get("stages")
                    answer = self._obey({"op": "reserve", "stage": entry["stage"], "stages": stages})
                    reserved = answer.get("worker")
                elif request.get("op") == "enrol" and reserved is not None:
                    self._book.find(hello.get("secret"))  # others may have come with it meanwhile
                    said = {key: request.get(key) for key in ("authorisation", "device", "data")}
                    answer = self._obey({"op": "enrol", **said, "only": reserved, "remote": True})
                    if answer["ok"]:
                        self._book.use(entry)
                        writer.write(json_frame(answer))
                        name, reserved = reserved, None
                        return name
                else:
                    raise WireError(f"{str(request.get('op'))[:20]!r} is nothing to say now")
                writer.write(json_frame(answer))
        finally:
            if reserved is not None:
                self._obey({"op": "release", "worker": reserved})

    async def _recognise(self, name: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Have whoever says to be the worker `name` prove it. Raises RunError when there is no such worker elsewhere."""
        row = next((row for row in self._run.info["workers"] if row["name"] == name and row.get("remote")), None)
        if row is None or row.get("left"):
            raise RunError(f"{str(name)[:20]} has no seat any more; come with a new invitation")
        nonce = secrets.token_hex(16)
        writer.write(json_frame({"ok": True, "nonce": nonce}))
        proof = await _hear(reader, STRANGER_TIMEOUT_S)
        if recover(proof_text(self._run.id, row["name"], nonce), str(proof.get("signature"))) != row["key"]:
            raise RunError(f"this is not the key of {row['name']}; come with a new invitation")
        return str(row["name"])

    def _facts(self) -> dict[str, Any]:
        """Return what one who joins has to know, and nothing of where or by whom the run is kept."""
        info = self._run.info
        chain = {key: info["chain"][key] for key in ("kind", "profile", "chain_id", "ledger", "token")}
        chain["url"] = info["chain"]["url"] and public_url(info["chain"]["url"])  # a key may be in the rest of it
        return {**{key: info[key] for key in PUBLIC_FACTS}, "chain": chain, "spec": self._run.spec.to_json().decode()}


async def _hear(reader: asyncio.StreamReader, timeout_s: float) -> dict[str, Any]:
    """Return the next thing said. Raises WireError at the end, TimeoutError when nothing comes."""
    async with asyncio.timeout(timeout_s):
        message = await read_json(reader, limit_bytes=STRANGER_LIMIT_BYTES)
    if message is None:
        raise WireError("it hung up")
    return message
