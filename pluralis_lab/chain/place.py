"""Where a home keeps its chain, and how a process finds its daemon or starts one."""

import fcntl
import hashlib
import json
import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pluralis_lab.errors import ChainError

PROTOCOL = 1  # between this package and its daemon; one more with every change that an older side would not understand
START_TIMEOUT_S = 60.0
_MAX_SOCKET_PATH = 100  # bytes; sun_path holds 104 on macOS and 108 on Linux


def home_folder(home: Path | str | None = None) -> Path:
    """The absolute home: the argument, else $PLURALIS_LAB_HOME, else ~/.pluralis_lab."""
    return Path(home or os.environ.get("PLURALIS_LAB_HOME") or Path.home() / ".pluralis_lab").expanduser().absolute()


@dataclass(frozen=True)
class ChainPlace:
    """The files of one home's chain, all in `<home>/chain/` (0700)."""

    home: Path

    @property
    def folder(self) -> Path:
        """The chain's own folder."""
        return self.home / "chain"

    @property
    def database(self) -> Path:
        """The blocks and the state."""
        return self.folder / "chain.db"

    @property
    def record(self) -> Path:
        """JSON of the running daemon: pid, socket, protocol. A daemon that was killed leaves it behind."""
        return self.folder / "daemon.json"

    @property
    def log(self) -> Path:
        """What the daemon has to say: starts, stops and tracebacks. Never parameters of a call."""
        return self.folder / "daemon.log"

    def make(self) -> None:
        """Create the folders, readable by their owner only."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def socket_path(self) -> Path:
        """Where a daemon listens: in the home, or in a private temporary folder when the home's path is too long for a socket."""
        path = self.folder / "daemon.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            return path
        folder = Path(tempfile.gettempdir()) / f"pluralis-lab-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
            raise ChainError(f"{folder} must be yours, with mode 0700; remove it, or set PLURALIS_LAB_HOME to a shorter path")
        return folder / (hashlib.sha256(os.fsencode(self.home)).hexdigest()[:24] + ".sock")

    @contextmanager
    def lock(self, name: str, *, wait_s: float) -> Iterator[None]:
        """Hold `<name>.lock` of this home. Raises TimeoutError when another process keeps it for `wait_s` seconds."""
        descriptor = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise TimeoutError(name) from None
                    time.sleep(0.02)  # flock has no wait with a limit that works in every thread
            yield
        finally:
            os.close(descriptor)

    def connect(self) -> socket.socket | None:
        """A connection to this home's daemon, or None when none is running. Raises ChainError for one of another version."""
        try:
            record = json.loads(self.record.read_text())
            path, protocol = record["socket"], record["protocol"]
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            return None
        if protocol != PROTOCOL:
            connection.close()
            raise ChainError(
                f"the chain daemon of {self.home} (process {record['pid']}) speaks protocol {protocol}, this package {PROTOCOL}; "
                f"end it with: kill {record['pid']}"
            )
        return connection

    def connect_or_start(self) -> socket.socket:
        """A connection to this home's daemon, which is started if need be. Raises ChainError when it does not come up."""
        connection = self.connect()
        if connection is not None:
            return connection
        self.make()
        try:
            with self.lock("start", wait_s=START_TIMEOUT_S):
                connection = self.connect()
                if connection is None:
                    _spawn(self)
                    connection = self.connect()
        except TimeoutError:
            raise ChainError(f"another process has been starting the chain of {self.home} for {START_TIMEOUT_S:.0f} s") from None
        if connection is None:
            raise ChainError(f"the chain daemon of {self.home} ended at once; see {self.log}")
        return connection


def _spawn(place: ChainPlace) -> None:
    """Start the daemon in a session of its own and wait until it listens."""
    read_end, write_end = os.pipe()
    environment = {key: value for key, value in os.environ.items() if key != "PLURALIS_LAB_PASSPHRASE"}
    environment["PLURALIS_LAB_HOME"] = str(place.home)
    # -P: a file named like a standard module in the caller's folder must not be imported by the daemon.
    command = [sys.executable, "-P", "-m", "pluralis_lab.chain.daemon", "--home", str(place.home), "--ready-fd", str(write_end)]
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write_end,),
            start_new_session=True,
            env=environment,
        )
    finally:
        os.close(write_end)
        os.close(log)
    # The daemon may outlive this process; if it ends first, someone has to collect it, or it stays as a zombie.
    threading.Thread(target=process.wait, name="collect chain daemon", daemon=True).start()
    with os.fdopen(read_end, "rb") as ready:
        begun = time.monotonic()
        if not select.select([ready], [], [], 1.0)[0]:
            # A kernel shows what goes to stderr as an error; a command's stdout may be read by a program.
            stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
            print("starting the embedded chain ...", file=stream, flush=True)
            if not select.select([ready], [], [], START_TIMEOUT_S)[0]:
                raise ChainError(f"the chain daemon did not start within {START_TIMEOUT_S:.0f} s; see {place.log}")
            print(f"... ready after {time.monotonic() - begun:.1f} s", file=stream, flush=True)
        answer = ready.readline().decode()
    if answer.strip() != "ready":
        raise ChainError(f"the chain daemon did not start: {answer.strip() or f'see {place.log}'}")
