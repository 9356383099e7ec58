"""`pl.join`: a worker of this machine in another's run, from a notebook or a script."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pluralis_lab.engines.invitation import Invitation
from pluralis_lab.errors import RunError
from pluralis_lab.markup import facts
from pluralis_lab.store import lab_home

LEAVE_TIMEOUT_S = 60.0
_ERROR = re.compile(r"[A-Z]\w+Error: ")


class Joined:
    """A worker that this kernel has brought into another's run; `join` makes one. It goes with this kernel, however that ends.

    invitation : what it came with
    """

    def __init__(self, invitation: Invitation, process: "subprocess.Popen[str]") -> None:
        self.invitation, self._process = invitation, process
        self.lines: list[str] = []
        self._changed, self._has_ended = threading.Condition(), False
        self._reader = threading.Thread(target=self._read, name=f"joined {invitation.run[:8]}", daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        """Whether it is there still."""
        return self._process.poll() is None

    def wait(self, *, until_active: bool = False, show: bool = True) -> "Joined":
        """Wait until it is over, or only until the worker takes part, and print what it tells meanwhile.

        Raises RunError with the reason when it failed.
        """
        shown = 0
        while True:
            with self._changed:
                while len(self.lines) == shown and not self._has_ended:
                    self._changed.wait()
                new = self.lines[shown:]
            for line in new:
                if show and not _ERROR.match(line):
                    print(line)
            shown += len(new)
            if until_active and any(line.startswith(("active", "serving")) for line in new):
                return self
            if not new:
                break
        if self._process.wait() != 0:
            said = [line for line in self.lines if _ERROR.match(line)] or self.lines
            raise RunError(_ERROR.sub("", said[-1]) if said else f"joining run {self.invitation.run[:8]} failed")
        return self

    def leave(self) -> "Joined":
        """Have the worker finish what it has begun and leave the run for good; wait until it has."""
        if self.is_running:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(LEAVE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGINT)  # the second time it goes at once
                self._process.wait()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError), self._process.stdout:  # closed while it was read
            for line in self._process.stdout:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # only now: it ties the worker to this kernel
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def __repr__(self) -> str:
        last = self.lines[-1] if self.lines else "starting"
        return f"<Joined run {self.invitation.run[:8]}: {last}>"

    def _repr_html_(self) -> str:
        state = "there" if self.is_running else "over"
        rows = [("run", self.invitation.run[:16]), ("state", state), ("last", self.lines[-1] if self.lines else "starting")]
        return facts("Joined", rows)


def join(
    invitation: str | Invitation,
    *,
    device: str = "cpu",
    stage: int | None = None,
    account: str = "default",
    accept: str | None = None,
    host: str | None = None,
    data: str | None = None,
    home: str | Path | None = None,
) -> Joined:
    """Bring a worker of this machine into the run that `invitation` is for, and return when it takes part.

    A worker of this home that the run knows and nobody runs comes back to its seat; otherwise a new one takes a seat. It ends
    with this kernel; ``pluralis-lab join`` in a shell stays.

    Parameters
    ----------
    invitation : from `Run.invite`
    device : "cpu", or "cuda:0" for the first GPU
    stage : where it works; None: where the run has fewest workers
    account : the participant who owns what it does, an account of this home, made on first use
    accept : `Blocks.accept_hash` of the model, where that is the founder's own (`Blocks`), which may then run here. Without it
        such a run is not joined, and the error says what would run and its hash
    host : this machine's address for the other workers; None: the one that leads to the run
    data : "path:FILE_OR_FOLDER", a text that it brings along as a worker of stage 0, and draws `RunSpec.own_data` of its
        micro-batches from. The file stays on this machine, but **every stage can read what is drawn**, as token ids
    home : where corpora, keys and accounts are kept; None: ``$PLURALIS_LAB_HOME`` or ``~/.pluralis_lab``

    Raises
    ------
    RunError : the invitation is none or has run out, or the run cannot be reached or does not take this worker

    Example
    -------
    >>> mine = pl.join("pluralis1....")
    >>> mine.leave()
    """
    parsed = Invitation.parse(invitation)
    options = {"--device": device, "--stage": stage, "--account": account, "--accept": accept, "--host": host, "--data": data}
    given = [text for option, value in options.items() if value is not None for text in (option, str(value))]
    # Not on the command line, which everybody on this machine can read: what opens the run is the invitation's text.
    process = subprocess.Popen(
        [sys.executable, "-m", "pluralis_lab.cli", "join", "-", "--tied", *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a kernel's interrupt is not for it
        env={**os.environ, "PLURALIS_LAB_HOME": str(lab_home(home)), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "FORCE_COLOR": ""},
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(f"{parsed}\n")
        process.stdin.flush()
    return Joined(parsed, process).wait(until_active=True)
