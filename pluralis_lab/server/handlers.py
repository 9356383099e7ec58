"""Tornado handlers made from the table of routes: authenticated, authorized, limited in size, always JSON."""

import asyncio
import inspect
import re
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, ClassVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.iostream import StreamClosedError

from pluralis_lab.errors import PluralisError, StoreError
from pluralis_lab.server.bodies import read_body
from pluralis_lab.server.encoding import to_json
from pluralis_lab.server.lab import Lab
from pluralis_lab.server.refusals import WORDS, Refusal, no_such_run
from pluralis_lab.server.route import LINES, Call, Route, Stream, Text
from pluralis_lab.store import RUN_ID

PREFIX = "pluralis-lab/api"
RESOURCE = "pluralis_lab"
"""What an authorizer is asked about: read for GET, write for what changes, execute for nothing here."""


@web.stream_request_body
class ApiHandler(APIHandler):
    """Base of the handlers. A body is read in pieces, so that one that is too large is never in memory."""

    auth_resource = RESOURCE
    lab: Lab
    routes: ClassVar[dict[str, Route]] = {}

    def initialize(self, lab: Lab) -> None:
        """Take what all handlers share."""
        super().initialize()
        self.lab = lab
        self._pieces: list[bytes] = []
        self._num_bytes = 0
        self._stream: Stream | None = None

    @property
    def _track_activity(self) -> bool:  # type: ignore[override]
        """Looking is no activity: open views poll, and would keep a hub's server awake for ever."""
        return self.request.method != "GET"

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, unless it is too much already."""
        self._num_bytes += len(chunk)
        if self._num_bytes <= self.lab.settings.max_request_bytes:
            self._pieces.append(chunk)
        else:
            self._pieces.clear()

    async def answer(self, method: str, *groups: str) -> None:
        """Check the request, run the operation, send its reply."""
        route = self.routes[method]
        path = dict(zip(re.findall(r"{(\w+)}", route.path), groups, strict=True))
        if "id" in path and not RUN_ID.fullmatch(path["id"]):
            raise no_such_run(path["id"])
        limit = self.lab.settings.max_request_bytes
        if self._num_bytes > limit:
            raise Refusal(413, f"the body has {self._num_bytes} bytes, the limit is {limit} (max_request_bytes); send less")
        if route.changes and self.lab.settings.read_only:
            raise Refusal(
                403, "this server is read-only: it shows runs and changes none; use another, or a notebook", "read-only"
            )
        query = {parameter.name: parameter.read(self.get_query_argument(parameter.name, None)) for parameter in route.query}
        body = None if route.body is None else read_body(b"".join(self._pieces), route.body)
        data = await self._run(route, Call(self.lab, path, query, body))
        self.set_status(route.status)
        if isinstance(data, Stream):
            await self._send_lines(data)
        elif isinstance(data, Text):
            self.finish(data.data, set_content_type=data.content_type)
        elif route.status == 204:
            self.finish()
        else:
            self.finish(data)

    async def _send_lines(self, stream: Stream) -> None:
        """Send each line when it comes, until there is none to come or the client has gone."""
        self._stream = stream
        self.set_header("Content-Type", LINES)
        self.set_header("X-Accel-Buffering", "no")  # a proxy that waits for the whole would show nothing until then
        try:
            await self.flush()
            async with aclosing(stream.lines) as lines:
                async for line in lines:
                    self.write(to_json(line) + b"\n")
                    await self.flush()
            self.finish(set_content_type=LINES)
        except StreamClosedError:
            return  # nobody reads any more
        finally:
            stream.close()

    def on_connection_close(self) -> None:
        """The client has gone in the middle of a reply."""
        super().on_connection_close()
        if self._stream is not None:
            self._stream.close()

    async def _run(self, route: Route, call: Call) -> bytes | Text | Stream | None:
        """Return the encoded reply. Reading and encoding happen in a thread: the loop serves kernels, too."""
        operation: Callable[[Call], Any] = route.operation
        try:
            if inspect.iscoroutinefunction(operation):
                found = await operation(call)
                return found if found is None or isinstance(found, Text | Stream) else await asyncio.to_thread(to_json, found)
            return await asyncio.to_thread(_called, operation, call)
        except StoreError as error:
            raise Refusal(409, f"the run is damaged: {error}", "damaged") from None
        except PluralisError as error:
            raise Refusal(409, str(error)) from None
        except FileNotFoundError:
            # It was deleted between the look into its root and the reading of it.
            raise no_such_run(call.path.get("id", "")) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if "id" not in call.path:
                raise
            # What a run's files say is not ours to trust: one that is not as it was written is damaged, and the log says where.
            self.log.warning("run %s cannot be read", call.path["id"], exc_info=True)
            raise Refusal(409, f"the run is damaged: {type(error).__name__}: {error}"[:400], "damaged") from None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say why as JSON; of what we did not foresee the client learns nothing but that it is in the log."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, Refusal):
            message, word = error.message, error.word
        elif isinstance(error, web.HTTPError):
            message, word = error.log_message or error.reason or self._reason, WORDS.get(status_code, "refused")
        else:
            message, word = "something went wrong that should not; the server's log has it", "bug"
        self.finish(to_json({"message": message, "reason": word}))


def _called(operation: Callable[[Call], Any], call: Call) -> bytes | Text | None:
    found = operation(call)
    return found if found is None or isinstance(found, Text) else to_json(found)


class NoSuchRoute(ApiHandler):
    """Everything else below our prefix: 404 in the same form, after the same questions."""

    @web.authenticated
    @authorized
    async def get(self, *groups: str) -> None:
        """Refuse."""
        raise Refusal(404, "there is no such route; GET openapi.json lists those that are there")

    post = put = delete = patch = head = get


def _verb(method: str) -> Callable[..., Any]:
    async def verb(self: ApiHandler, *groups: str) -> None:
        await self.answer(method, *groups)

    # Each verb is decorated by itself: `authorized` remembers the action of the first method it is called for.
    return web.authenticated(authorized(verb))


def make_handlers(routes: tuple[Route, ...]) -> list[tuple[str, type[ApiHandler]]]:
    """Return (pattern below the base URL, handler) for each path of the table."""
    by_path: dict[str, dict[str, Route]] = {}
    for route in routes:
        by_path.setdefault(route.path, {})[route.method] = route
    handlers = []
    for path, methods in by_path.items():
        name = "".join(part.capitalize() for part in re.findall(r"\w+", path)) + "Handler"
        members: dict[str, Any] = {method.lower(): _verb(method) for method in methods}
        handler = type(name, (ApiHandler,), {**members, "routes": methods, "__doc__": f"`{path}`."})
        handlers.append((f"{PREFIX}/{pattern(path)}", handler))
    return handlers


def pattern(path: str) -> str:
    """Return the regular expression of a path; what is in braces is checked by the operation, for a reply in our form."""
    return "".join("([^/]+)" if part.startswith("{") else re.escape(part) for part in re.split(r"({\w+})", path))
