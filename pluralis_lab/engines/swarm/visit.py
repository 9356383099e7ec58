"""A seat in somebody else's run: its folder here, its key, and what its worker has done so far."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.store import RunDirectory

PROGRESS_EVERY_S = 10.0


@dataclass
class Visit:
    """A worker that this machine brings into a run.

    directory : what this machine keeps of the run: not the run itself, which is with its owner
    """

    worker: str
    key: HotKey
    directory: RunDirectory
    progress: "Progress"


@dataclass
class Progress:
    """Reads the worker's reports as they pass, and tells what whoever waits for it wants to know.

    began : when joining began, in seconds of the monotonic clock
    """

    tell: Callable[[str], None]
    began: float
    tokens: int = 0
    first_counted_s: float | None = None
    _told_at: float = field(default=0.0, repr=False)

    def look(self, data: bytes) -> None:
        """Take one message of the worker to the supervisor."""
        message = json.loads(data)
        if message.get("op") != "report":
            return
        body, now = message["body"], time.monotonic()
        if message["kind"] == "state":
            of = f": {body['received_bytes'] / 1e6:.1f} of {body['size_bytes'] / 1e6:.1f} MB" if "size_bytes" in body else ""
            self.tell(f"{body['state']}{of} after {now - self.began:.1f} s")
        elif message["kind"] == "work":
            self.tokens += body["tokens"]
            if body["tokens"] and self.first_counted_s is None:
                self.first_counted_s = now - self.began
                self._told_at = now
                self.tell(f"first micro-batch counted after {self.first_counted_s:.1f} s")
            elif self.tokens and now - self._told_at > PROGRESS_EVERY_S:
                self._told_at = now
                self.tell(f"round {body['round']}: {self.tokens:,} tokens counted so far")


def own_folder(path: Path) -> int | None:
    """Take a worker's folder for this process and return the descriptor that holds it, None when another process has it."""
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
