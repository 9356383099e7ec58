"""A run's process and how it gets its run: it starts before there is one, loads its libraries, and waits at its standard input.

That is a socket. What it is told is one line of JSON: the run's directory, the version to go on from, and the tokens that it
signs with, which so are in no file and no environment. With the line comes the descriptor that holds the run's lock: nobody else
can start between.
"""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from pluralis_lab.chain.sessions import PASSPHRASE_VARIABLE
from pluralis_lab.engines.control import own
from pluralis_lab.errors import RunError
from pluralis_lab.store import RunDirectory

LOG = "supervisor.log"
_CHUNK_BYTES = 1 << 16
_MOST_BYTES = 1 << 24


class Handed(NamedTuple):
    """What a process is to do: `run`, from `version` completed rounds on, signing with the tokens `granted` by account name."""

    run: RunDirectory
    version: int
    granted: dict[str, str]


@dataclass
class RunProcess:
    """A process started here, as whoever started it sees it.

    line : its standard input; None once it was let go. With ``lifetime="kernel"`` it ends when this does
    early : what it writes until it knows its run's log
    has_run : whether it was told of one
    """

    child: subprocess.Popen[bytes]
    line: socket.socket | None
    early: IO[bytes]
    has_run: bool = False

    @classmethod
    def start(cls, module: str, home: Path) -> "RunProcess":
        """Start ``python -m module``, which waits for a run under `home`."""
        environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE_VARIABLE}
        ours, theirs = socket.socketpair()
        early = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has its run, or ended
        with theirs:
            # A session of its own: a kernel's interrupt goes to the kernel's process group and must not reach the run.
            child = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=theirs.fileno(),
                stdout=early,
                stderr=early,
                start_new_session=True,
                env={**environment, "PLURALIS_LAB_HOME": str(home)},
            )
        return cls(child, ours, early)

    def hand(self, run: RunDirectory, *, version: int, granted: dict[str, str], lock: int) -> None:
        """Tell the process what it is for; `lock`, the descriptor that holds the run's, is closed here."""
        assert self.line is not None
        self.has_run = True
        words = {"run": str(run.path), "version": version, "granted": granted}
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended at once: its log says why
                rest = memoryview(json.dumps(words).encode() + b"\n")
                sent = socket.send_fds(self.line, [rest], [lock])
                self.line.sendall(rest[sent:])
        finally:
            os.close(lock)

    def let_go(self) -> None:
        """Close its standard input: what lives as long as this process ends with that, and nothing else is told there."""
        if self.line is not None:
            self.line.close()
            self.line = None

    def abandon(self) -> None:
        """End a process that has no run yet."""
        self.child.kill()
        self.child.wait()
        self.let_go()
        self.early.close()


def take_run() -> Handed | None:
    """In the run's process: wait for the run, own it, and write to its log from now on; None when nobody hands one over.

    Raises RunError when another process has the run, or what came is none.
    """
    line, descriptors = _read_line()
    if not line:
        return None
    try:
        words = json.loads(line)
        run, version, granted = RunDirectory(words["run"]), int(words["version"]), dict(words["granted"])
    except (ValueError, KeyError, TypeError):
        raise RunError(f"standard input begins with {line[:80]!r}, which is no run; start runs with pl.launch") from None
    own(run, descriptors)
    _write_to(run.path / "logs" / LOG)
    return Handed(run, version, granted)


def _read_line() -> tuple[bytes, list[int]]:
    """Read standard input up to the end of its first line, with the descriptors that come along."""
    line = b""
    descriptors: list[int] = []
    is_socket = stat.S_ISSOCK(os.fstat(0).st_mode)
    with socket.socket(fileno=os.dup(0)) if is_socket else contextlib.nullcontext() as connection:
        while not line.endswith(b"\n") and len(line) < _MOST_BYTES:
            if connection is None:
                data = os.read(0, 1)  # byte by byte: what follows the line is for somebody else
            else:
                data, came, _, _ = socket.recv_fds(connection, _CHUNK_BYTES, 1)
                descriptors += came
            if not data:
                break
            line += data
    return line, descriptors


def _write_to(log: Path) -> None:
    """Have standard output and error, and what went there so far, in `log`."""
    early = os.pread(2, _CHUNK_BYTES, 0) if stat.S_ISREG(os.fstat(2).st_mode) else b""
    with open(log, "ab") as file:
        file.write(early)
        file.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
