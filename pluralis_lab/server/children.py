"""Child processes of the chosen interpreter: what needs torch or web3, or changes a run, happens there and not in this server."""

import asyncio
import json
import os
from contextlib import suppress
from logging import Logger
from pathlib import Path
from typing import Any

from pluralis_lab.server.metering import Meters
from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.settings import Settings

MAX_LINE_BYTES = 64 * 2**20
LOG_BYTES = 4_000
SPEC_ERRORS = ("RunSpecError", "CorpusError", "UnknownAccountError")
"""Kinds that blame the request (400); others blame the state of things (409)."""
HELPER_TIMEOUT_S = 60.0
HELPER_IDLE_S = 300.0


class Children:
    """Starts and ends the children of one server.

    A child reads requests from its standard input, one JSON line each, and answers with one JSON line each. The end of that
    input ends it, so none outlives this server, however the server ends.
    """

    def __init__(self, settings: Settings, meters: Meters, log: Logger) -> None:
        self._settings, self._meters, self._log = settings, meters, log
        self._running: set[asyncio.subprocess.Process] = set()
        self._launches = 0
        self._busy: set[tuple[str, str]] = set()
        self._is_closed = False
        self.checker = Helper(self, "checker")
        self.reader = Helper(self, "chain_reader")

    async def once(self, op: str, home: Path, *, run: str = "", timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Run one operation in a child of its own and return its answer.

        Raises Refusal: 400 or 409 with the operation's own message, 409 while the same is being done to the run already,
        503 when as many children as the settings allow are at work, or when the child fails or takes too long.
        """
        if self._launches >= self._settings.max_launches:
            limit = self._settings.max_launches
            raise Refusal(503, f"{limit} operations are under way, the limit is max_launches; try again when one is done")
        key = (op, run)
        if run and key in self._busy:
            raise Refusal(409, f"run {run[:8]}: {op} is under way already; wait for it")
        self._launches += 1
        self._busy.add(key)
        try:
            process = await self.start(op, ["-m", "pluralis_lab.server.child", op], home)
            try:
                request = {"home": str(home), "run": run, **arguments}
                answer = await asyncio.wait_for(self.ask(process, request), timeout_s)
            except TimeoutError:
                self._meters.failed.labels(op).inc()
                raise Refusal(
                    503, f"{op} took more than {timeout_s:.0f} s and was ended; look at the run, then try again"
                ) from None
            finally:
                await self.end(process, op)
        finally:
            self._launches -= 1
            self._busy.discard(key)
        return self.unpacked(op, answer)

    async def start(self, op: str, arguments: list[str], home: Path | None = None) -> asyncio.subprocess.Process:
        """Start a child. Raises Refusal (503) when the interpreter cannot be started."""
        if self._is_closed:
            raise Refusal(503, "the server is stopping; ask again when it is back")
        environment = {**os.environ, "PLURALIS_LAB_HEADLESS": "1"}
        if home is not None:
            environment["PLURALIS_LAB_HOME"] = str(home)
        try:
            process = await asyncio.create_subprocess_exec(
                self._settings.interpreter,
                "-P",  # a file named like a module in the notebooks' folder must not be imported
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # an interrupt of the server's terminal is the server's to handle
                limit=MAX_LINE_BYTES,
                env=environment,
            )
        except OSError as error:
            raise Refusal(
                503, f"interpreter={self._settings.interpreter!r} cannot be started ({error.strerror}); set it right"
            ) from None
        self._running.add(process)
        self._meters.started.labels(op).inc()
        self._meters.children.labels(op).inc()
        return process

    async def ask(self, process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request to a child and return its answer; {} when it ended without one, with its last words in the log."""
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        try:
            return dict(json.loads(line))
        except ValueError:
            return {}

    async def end(self, process: asyncio.subprocess.Process, op: str) -> None:
        """Close a child's input, which ends it; kill one that does not obey."""
        if process not in self._running:
            return
        self._running.discard(process)
        self._meters.children.labels(op).dec()
        if process.stdin is not None:
            process.stdin.close()
        try:
            _, said = await asyncio.wait_for(process.communicate(), 5)
        except TimeoutError:
            process.kill()
            _, said = await process.communicate()
        if said:
            self._log.info("pluralis_lab %s: %s", op, said.decode(errors="replace")[-LOG_BYTES:].rstrip())

    def unpacked(self, op: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer's result. Raises Refusal for an error, and for no answer."""
        if "result" in answer:
            return dict(answer["result"])
        self._meters.failed.labels(op).inc()
        kind = str(answer.get("kind", ""))
        if not kind:
            raise Refusal(503, f"the process for {op} ended without an answer; the server's log has its last words")
        if kind == "bug":
            self._log.error("pluralis_lab %s failed: %s", op, answer.get("error"))
            raise Refusal(503, f"{op} failed in a way that it should not; the server's log has it")
        if kind in SPEC_ERRORS:
            raise Refusal(400, str(answer["error"]))
        raise Refusal(409, str(answer["error"]))

    async def close(self) -> None:
        """End all children at once, whatever they are at: the server stops."""
        self._is_closed = True
        for process in self._running:
            if process.returncode is None:
                process.kill()
        await self.checker.close()
        await self.reader.close()
        for process in list(self._running):
            await self.end(process, "stopping")


class Helper:
    """A child that stays, because starting it takes longer than what it does; one request at a time.

    It is started by the first request, again after it ended, and let go after `HELPER_IDLE_S` without a request.
    """

    def __init__(self, children: Children, module: str) -> None:
        self._children, self._module = children, module
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request. Raises Refusal like `Children.once`."""
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            answer: dict[str, Any] = {}
            for _ in range(2):  # one that was killed meanwhile is started again, once
                if self._process is None or self._process.returncode is not None:
                    await self._end()
                    self._process = await self._children.start(self._module, ["-m", f"pluralis_lab.server.{self._module}"])
                try:
                    answer = await asyncio.wait_for(self._children.ask(self._process, request), HELPER_TIMEOUT_S)
                except TimeoutError:
                    self._process.kill()
                    await self._end()
                    raise Refusal(503, f"no answer within {HELPER_TIMEOUT_S:.0f} s; try again") from None
                if answer:
                    break
                await self._end()
            self._idle = asyncio.get_running_loop().call_later(HELPER_IDLE_S, self._let_go)
        return self._children.unpacked(self._module, answer)

    def _let_go(self) -> None:
        self._ending = asyncio.ensure_future(self.close())

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await self._children.end(process, self._module)

    async def close(self) -> None:
        """End the child, after the request that it is at."""
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            await self._end()
