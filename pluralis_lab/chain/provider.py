"""A thread-safe JSON-RPC connection to the chain daemon, and the web3 provider over it."""

import itertools
import json
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from pluralis_lab.chain.place import ChainPlace
from pluralis_lab.chain.shown import public_url
from pluralis_lab.errors import ChainError

if TYPE_CHECKING:
    from web3.providers import JSONBaseProvider

CALL_TIMEOUT_S = 300.0
HTTP_TIMEOUT_S = 30
CODE_LOCKED, CODE_STOPPING = -32001, -32002
_STOPPING_RETRIES, _STOPPING_PAUSE_S = 40, 0.05
# What must not happen twice, so that nothing is known of it when the daemon goes away before it answers.
_ONCE = frozenset({"pluralis_sendTransaction", "pluralis_fund", "eth_sendRawTransaction"})


class DaemonGoneError(ChainError):
    """The daemon ended between a question and its answer."""


class RpcError(ChainError):
    """The daemon, or a node, answered with an error; `data` is what a contract returned, 0x-hex, when one refused."""

    def __init__(self, message: str, *, code: int, data: str | None = None) -> None:
        super().__init__(message)
        self.code, self.data = code, data


class DaemonConnection:
    """One home's daemon, started on first use and again after it ended.

    Calls of several threads follow each other. A forked child opens a connection of its own.
    """

    _socket: socket.socket | None = None

    def __init__(self, place: ChainPlace) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._owner = 0
        self._buffer = b""
        self._ids = itertools.count(1)

    def call(self, method: str, *params: Any) -> Any:
        """The result of one call. Raises RpcError when the daemon refuses, ChainError when it cannot be reached."""
        answer = self.request(method, list(params))
        if "error" in answer:
            error = answer["error"]
            raise RpcError(str(error["message"]), code=int(error["code"]), data=error.get("data"))
        return answer["result"]

    def request(self, method: str, params: Any) -> dict[str, Any]:
        """The whole JSON-RPC answer to one call. Raises ChainError when the daemon cannot be reached."""
        line = (
            json.dumps({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}, default=_as_json).encode()
            + b"\n"
        )
        with self._lock:
            for attempt in range(_STOPPING_RETRIES):
                try:
                    answer = self._exchange(method, line)
                except DaemonGoneError:
                    if attempt or method in _ONCE:
                        raise
                    continue  # it was ending as it was asked, for instance because it was idle: the next one answers
                if (answer.get("error") or {}).get("code") != CODE_STOPPING:
                    return answer
                self._drop()  # it was ending and has done nothing; the next one is started as soon as it has let go
                time.sleep(_STOPPING_PAUSE_S)
        raise ChainError(f"the chain daemon of {self.place.home} is ending and does not come to an end; see {self.place.log}")

    def _exchange(self, method: str, line: bytes) -> dict[str, Any]:
        connection = self._connected()
        try:
            connection.sendall(line)
            answer: dict[str, Any] = json.loads(self._read_line(connection))
        except (OSError, ValueError) as error:
            self._drop()
            raise DaemonGoneError(
                f"the chain daemon went away during {method} ({error!r}); call again, or see {self.place.log}"
            ) from error
        except BaseException:  # an interrupt of the kernel: the answer, still on its way, must not be taken for the next one's
            self._drop()
            raise
        return answer

    def _connected(self) -> socket.socket:
        if self._socket is not None and (self._owner != os.getpid() or self._was_closed(self._socket)):
            self._drop()
        if self._socket is None:
            self._socket, self._owner, self._buffer = self.place.connect_or_start(), os.getpid(), b""
            self._socket.settimeout(CALL_TIMEOUT_S)
        return self._socket

    @staticmethod
    def _was_closed(connection: socket.socket) -> bool:
        # Between two calls the daemon never speaks: a readable socket means it ended, for instance because it was idle.
        return bool(select.select([connection], [], [], 0)[0])

    def _read_line(self, connection: socket.socket) -> bytes:
        while b"\n" not in self._buffer:
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionResetError("closed before it answered")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def close(self) -> None:
        """Close the connection; the daemon goes on. The next call opens another."""
        with self._lock:
            self._drop()

    def __del__(self) -> None:
        self._drop()


def stop_daemon(place: ChainPlace, *, timeout_s: float = 10.0) -> bool:
    """End the home's daemon and wait until it has closed its database; False when none was running."""
    connection = place.connect()
    if connection is None:
        return False
    with connection:
        connection.settimeout(timeout_s)
        connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"pluralis_shutdown","params":[]}\n')
        connection.recv(4096)
    try:
        with place.lock("daemon", wait_s=timeout_s):
            return True
    except TimeoutError:
        raise ChainError(f"the chain daemon of {place.home} has not ended within {timeout_s:.0f} s; see {place.log}") from None


def _as_json(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return "0x" + bytes(value).hex()
    raise TypeError(f"{type(value).__name__} in a call to the chain daemon")


def web3_provider(connection: DaemonConnection) -> "JSONBaseProvider":
    """A web3 provider whose requests go through `connection`."""
    from web3.providers import JSONBaseProvider
    from web3.types import RPCEndpoint, RPCResponse

    class DaemonProvider(JSONBaseProvider):
        """web3 over the daemon's Unix socket."""

        def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
            """Send one request."""
            answer: Any = connection.request(method, json.loads(self.encode_rpc_request(method, params))["params"])
            return answer  # type: ignore[no-any-return]

        def is_connected(self, show_traceback: bool = False) -> bool:
            """The daemon is started on demand, so it always is."""
            return True

    return DaemonProvider()


def http_provider(url: str) -> "JSONBaseProvider":
    """A web3 provider over http, whose failures to reach the node are ChainErrors."""
    from requests import RequestException
    from web3 import HTTPProvider
    from web3.types import RPCEndpoint, RPCResponse

    class NodeProvider(HTTPProvider):
        """web3 over http."""

        def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
            """Send one request."""
            try:
                return super().make_request(method, params)
            except RequestException as error:
                # The error itself, which a traceback would show, has the whole URL in it, and with that a hosted node's key.
                where = public_url(url)
                raise ChainError(f"the node at {where} could not be reached ({type(error).__name__}); is it running?") from None

    return NodeProvider(url, request_kwargs={"timeout": HTTP_TIMEOUT_S})
