"""The embedded chain's daemon: `python -m pluralis_lab.chain.daemon --home DIR`; one for each home, JSON-RPC over a Unix socket.

It is started on demand, outlives runs and kernels, and ends after half an hour without a request. It holds the private
keys of the home's accounts, so that no notebook ever does: callers name an account, and the daemon signs.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pluralis_lab.chain.place import PROTOCOL, ChainPlace, home_folder
from pluralis_lab.chain.private_file import write_private
from pluralis_lab.chain.provider import CODE_STOPPING, stop_daemon
from pluralis_lab.errors import ChainError

IDLE_S = 1800.0
STOP_TIMEOUT_S = 30.0
MAX_REQUEST_BYTES = 32 * 2**20
_STOPPING = {"jsonrpc": "2.0", "id": None, "error": {"code": CODE_STOPPING, "message": "the chain daemon is ending"}}
_log = logging.getLogger("pluralis_lab.chain.daemon")


class Daemon(socketserver.ThreadingUnixStreamServer):
    """The listening socket, the methods behind it, and the clock that ends an idle daemon."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, place: ChainPlace, *, idle_s: float) -> None:
        from pluralis_lab.chain.methods import Methods  # the EVM and the key files load only in the daemon itself

        self._place, self._idle_s = place, idle_s
        self._stopping = threading.Event()
        self._active = threading.Condition()
        self._num_active, self._last_request = 0, time.monotonic()
        self.methods = Methods(place, on_shutdown=self._stopping.set)
        self.socket_path = place.socket_path()
        self.socket_path.unlink(missing_ok=True)
        previous = os.umask(0o177)  # the socket is 0600 from its first moment
        try:
            super().__init__(str(self.socket_path), _Connection)
        finally:
            os.umask(previous)

    def answer(self, line: bytes, send: Callable[[bytes], Any]) -> None:
        """Answer one request. Once the daemon is stopping nothing new is begun, and what was begun is answered."""
        with self._active:
            is_late = self._stopping.is_set()
            self._num_active += 1
        try:
            send(json.dumps(_STOPPING if is_late else self.methods.answer(line)).encode() + b"\n")
        finally:
            with self._active:
                self._num_active -= 1
                self._last_request = time.monotonic()
                self._active.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of its answer is no fault of ours; anything else is logged."""
        error = sys.exc_info()[1]
        if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
            _log.error("a connection failed", exc_info=error)

    def run(self, ready_fd: int | None) -> None:
        """Serve until SIGTERM, a shutdown request, the end of the idle time, or the removal of the home."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stopping.set())
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="accept")
        thread.start()
        try:
            record = {"pid": os.getpid(), "socket": str(self.socket_path), "protocol": PROTOCOL}
            write_private(self._place.record, json.dumps(record) + "\n")
            if ready_fd is not None:
                with contextlib.suppress(BrokenPipeError):  # who started it has gone; others may need it
                    os.write(ready_fd, b"ready\n")
                os.close(ready_fd)
            self._last_request = time.monotonic()  # the idle time begins now: a first start has made a chain by then
            while not self._stopping.wait(self._next_look_s()):
                if not self._place.database.exists() or self._is_idle():
                    break
        finally:
            self._place.record.unlink(missing_ok=True)
            self.socket_path.unlink(missing_ok=True)
            self._stopping.set()
            self.shutdown()
            thread.join()
            with self._active:
                self._active.wait_for(lambda: self._num_active == 0, timeout=STOP_TIMEOUT_S)
            self.server_close()
            self.methods.close()

    def _next_look_s(self) -> float:
        return max(0.05, min(5.0, self._last_request + self._idle_s - time.monotonic()))

    def _is_idle(self) -> bool:
        with self._active:
            return self._num_active == 0 and time.monotonic() - self._last_request >= self._idle_s


class _Connection(socketserver.StreamRequestHandler):
    """One client: a request a line, an answer a line."""

    server: Daemon

    def handle(self) -> None:
        """Answer until the client closes."""
        while line := self.rfile.readline(MAX_REQUEST_BYTES):
            if not line.endswith(b"\n"):
                return
            self.server.answer(line, self.wfile.write)


def main(arguments: list[str] | None = None) -> int:
    """Run, or with --stop end, the daemon of a home."""
    parser = argparse.ArgumentParser(prog="python -m pluralis_lab.chain.daemon", description=__doc__)
    parser.add_argument("--home", type=Path, default=None, help="default: $PLURALIS_LAB_HOME or ~/.pluralis_lab")
    parser.add_argument("--idle-s", type=float, default=float(os.environ.get("PLURALIS_LAB_CHAIN_IDLE_S", IDLE_S)))
    parser.add_argument("--stop", action="store_true", help="end the daemon of this home and wait until it is gone")
    parser.add_argument("--ready-fd", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    place = ChainPlace(home_folder(options.home))
    if options.stop:
        print("stopped" if stop_daemon(place) else "no daemon was running")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    _log.setLevel(logging.INFO)
    os.umask(0o077)
    place.make()
    os.chdir("/")
    try:
        with place.lock("daemon", wait_s=10.0):
            daemon = Daemon(place, idle_s=options.idle_s)
            _log.info("started, process %d", os.getpid())
            daemon.run(options.ready_fd)
            _log.info("stopped, process %d", os.getpid())
    except TimeoutError:
        return _fail(options.ready_fd, f"another daemon holds the chain of {place.home} and does not answer; end it first")
    except ChainError as error:
        return _fail(options.ready_fd, str(error))
    return 0


def _fail(ready_fd: int | None, message: str) -> int:
    _log.error("%s", message)
    if ready_fd is not None:
        os.write(ready_fd, message.encode() + b"\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
