"""A child's side of the conversation: a JSON request a line in, a JSON answer a line out, and the end when the server ends."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from pluralis_lab.errors import PluralisError

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def answer_all(answer: Answer) -> None:
    """Answer requests until standard input ends.

    Whoever prints meanwhile prints to standard error: the way to the server carries answers alone. When the input ends in
    the middle of a request, the server has gone, and so does this process.
    """
    out = _private_stdout()
    requests = _Requests()
    for line in requests:
        out.write(json.dumps(_answered(answer, line)).encode() + b"\n")
        out.flush()


class _Requests:
    """Lines of standard input, read by a thread that notices the server's end also while a request is being worked on."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._lines: list[bytes] = []
        self._is_working = False
        self._is_over = False
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._ready:
                self._is_working = False
                self._ready.wait_for(lambda: self._lines or self._is_over)
                if not self._lines:
                    return
                self._is_working = True
                line = self._lines.pop(0)
            yield line

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            with self._ready:
                self._lines.append(line)
                self._ready.notify()
        with self._ready:
            self._is_over = True
            if self._is_working:
                os._exit(1)
            self._ready.notify()


def _private_stdout() -> BinaryIO:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _answered(answer: Answer, line: bytes) -> dict[str, Any]:
    try:
        return {"result": answer(json.loads(line))}
    except PluralisError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "kind": "bug"}
