"""The live socket of a run: a thin way between a browser and a `Viewer`'s seat at the hub."""

import asyncio
from typing import Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from pluralis_lab.foreign_json import parse_foreign
from pluralis_lab.server.encoding import to_json
from pluralis_lab.server.handlers import PREFIX, RESOURCE
from pluralis_lab.server.lab import Lab
from pluralis_lab.server.live.hub import Seat
from pluralis_lab.server.refusals import WORDS, Refusal, no_such_run
from pluralis_lab.server.route import Parameter
from pluralis_lab.store import RUN_ID, RunDirectory

LIVE_PATH = "runs/{id}/live"
PATTERN = f"{PREFIX}/runs/([^/]+)/live"
SINCE = Parameter("since", "send no picture until there is one newer than this event", minimum=-1, maximum=2**53, default=-1)
MAX_MESSAGE_BYTES = 4_096
BAD_MESSAGE = 1008


class LiveHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """`WS runs/{id}/live?since=SEQ`."""

    auth_resource = RESOURCE
    _track_activity = False

    def initialize(self, lab: Lab) -> None:
        """Take what all handlers share."""
        super().initialize()
        self.lab = lab
        self._seat: Seat | None = None
        self._directory: RunDirectory | None = None
        self._since = -1
        self._last_write: asyncio.Future[None] | None = None

    @property
    def max_message_size(self) -> int:
        """Viewers say little."""
        return MAX_MESSAGE_BYTES

    @ws_authenticated
    @authorized("read", RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self, run_id: str) -> None:  # type: ignore[override]
        """Check everything before the socket is open."""
        if not RUN_ID.fullmatch(run_id):
            raise no_such_run(run_id)
        since = SINCE.read(self.get_query_argument("since", None))
        assert isinstance(since, int)
        self._since = since
        self._directory = await asyncio.to_thread(self.lab.roots.find, run_id)
        self.lab.hub.check_room(run_id)
        await super().get(run_id)

    def open(self, run_id: str) -> None:
        """Sit down at the hub."""
        super().open(run_id)
        assert self._directory is not None
        try:
            self._seat = self.lab.hub.join(self._directory, self, self._since)
        except Refusal as refusal:  # the last place was taken between the check and the opening
            self.end(1013, refusal.message)

    def on_message(self, message: str | bytes) -> None:
        """Take an acknowledgement, or a change of visibility; whoever says anything else is not our client."""
        try:
            said = parse_foreign(message)
            match said["type"]:
                case "ack" if type(said["seq"]) is int:
                    self._hear(seq=said["seq"])
                case "visible" if type(said["visible"]) is bool:
                    self._hear(visible=said["visible"])
                case other:
                    raise ValueError(other)
        except (ValueError, KeyError, TypeError):
            self.end(BAD_MESSAGE, 'say {"type": "ack", "seq": N} or {"type": "visible", "visible": true}')

    def _hear(self, *, seq: int | None = None, visible: bool | None = None) -> None:
        if self._seat is None:
            return  # the hub was full when the socket opened: it is being closed
        if seq is not None:
            self._seat.acknowledge(seq)
        if visible is not None:
            self._seat.set_visible(visible)

    def on_close(self) -> None:
        """Leave the hub."""
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.leave()

    # -- `Line`: what the hub does with this socket ----------------------------------------------------------------------

    def send(self, text: bytes, kind: str) -> None:
        """Send a message; bytes that are text already, so that they are not encoded once more for every viewer."""
        if self.ws_connection is None or self.ws_connection.is_closing():
            return
        try:
            self._last_write = asyncio.ensure_future(self.write_message(text))
        except WebSocketClosedError:
            return
        self._last_write.add_done_callback(_forget_failure)
        self.lab.meters.sent.labels(kind).inc()
        self.lab.meters.sent_bytes.inc(len(text))

    @property
    def is_clogged(self) -> bool:
        """Whether the last message is still in this process's memory."""
        return self._last_write is not None and not self._last_write.done()

    def end(self, code: int, reason: str) -> None:
        """Close the socket; a closing reason has at most 123 bytes."""
        self.close(code, reason.encode()[:120].decode(errors="ignore"))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say why as JSON: the answer to a handshake is plain HTTP."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        message = error.message if isinstance(error, Refusal) else self._reason
        self.set_header("Content-Type", "application/json")
        self.finish(to_json({"message": message, "reason": WORDS.get(status_code, "refused")}))


def _forget_failure(write: "asyncio.Future[None]") -> None:
    """A viewer that left in the middle of a message is told to the hub by `on_close`; its write has nothing to add."""
    if not write.cancelled():
        write.exception()
