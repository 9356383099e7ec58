"""Starting, finding, commanding and ending the process that owns a run. Imports neither torch nor hivemind."""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil

from pluralis_lab.chain.sessions import PASSPHRASE_VARIABLE
from pluralis_lab.engines.control import LOCK_VARIABLE, lock, read_control, sweep
from pluralis_lab.errors import PluralisError, RunError
from pluralis_lab.store import RunDirectory, list_runs

START_TIMEOUT_S = 180.0
"""Far above what a start takes (2 s, ten times that on a crowded machine): it ends only a wait that has no end."""
COMMAND_TIMEOUT_S = 10.0

_children: dict[str, subprocess.Popen[bytes]] = {}
"""Processes started here, by run id: reaped when they end; with lifetime="kernel" their standard input ends with this one."""


def start_supervisor(run: RunDirectory, *, version: int, granted: dict[str, str] | None = None) -> None:
    """Start the swarm engine's supervisor for `run`, from `version` completed rounds on.

    granted : tokens of the attesters' accounts by name (`Chain.delegate`); they go through a pipe and are written nowhere
    """
    _start(run, "pluralis_lab.engines.swarm.supervisor_process", version, granted or {})


def start_virtual(run: RunDirectory, *, version: int, granted: dict[str, str] | None = None) -> None:
    """Start the virtual engine's process for `run`; `granted` as in `start_supervisor`."""
    _start(run, "pluralis_lab.engines.virtual.process", version, granted or {})


def _lock_after_its_end(run: RunDirectory) -> int:
    """Take the run's lock, waiting for a process that has recorded its end and has still to exit. Raises RunError as `lock`."""
    end = time.monotonic() + COMMAND_TIMEOUT_S
    while True:
        try:
            return lock(run)
        except RunError:
            if read_control(run) is not None or time.monotonic() > end:
                raise
        time.sleep(0.02)  # another process's exit: there is nothing to wait on but its lock


def _start(run: RunDirectory, module: str, version: int, granted: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE_VARIABLE}
    keeps = run.info["lifetime"] == "kernel"
    descriptor = _lock_after_its_end(run)
    with open(run.path / "logs" / "supervisor.log", "ab") as log:
        # A session of its own: a kernel's interrupt goes to the kernel's process group and must not reach the run.
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(run.path), str(version)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[descriptor],  # the lock is the child's from its first moment on: nobody else can start between
            env={**environment, "PLURALIS_LAB_HOME": str(run.path.parent.parent), LOCK_VARIABLE: str(descriptor)},
        )
    os.close(descriptor)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # one that ended at once: its log says why, and is raised below
        process.stdin.write(json.dumps(granted).encode() + b"\n")
        process.stdin.flush()
    if not keeps:
        _release(process)
        process.stdin = None
    if (before := _children.pop(run.id, None)) is not None:
        _release(before)
    _children[run.id] = process
    end = time.monotonic() + START_TIMEOUT_S
    while read_control(run) is None and process.poll() is None:
        if time.monotonic() > end:
            process.kill()
            process.wait()
            raise _failed_to_start(run, f"did not start in {START_TIMEOUT_S:.0f} s")
        time.sleep(0.02)  # another process's file: there is nothing to wait on but the file system
    if process.poll() not in (None, 0):
        raise _failed_to_start(run, f"ended with status {process.returncode}")


def _failed_to_start(run: RunDirectory, how: str) -> RunError:
    """Note that the run has failed, so that nobody waits for it, and return the error to raise."""
    if run.info["state"] == "starting":
        run.update_info(state="failed", reason=f"the run's process {how}", pid=None)
    return RunError(f"the process of run {run.id[:8]} {how}; the end of its log:\n{run.log_tail('supervisor')}")


def is_running(run: RunDirectory) -> bool:
    """Say whether the process that owns `run` is alive; cleans up after one that was killed."""
    child = _children.get(run.id)
    if child is not None and child.poll() is not None:
        _release(_children.pop(run.id))
    sweep(run)
    if read_control(run) is not None:
        return True
    _note_if_never_started(run)
    return False


def sweep_home(home: Path) -> None:
    """Clean up after every run of `home` whose process was killed, so that what is left of it does not pile up."""
    for run in list_runs(home):
        with contextlib.suppress(PluralisError):  # a damaged run says so where it is opened or listed
            is_running(run)


def _note_if_never_started(run: RunDirectory) -> None:
    """Note the failure of a run whose starter was killed before there was a process, so that nobody waits for it."""
    facts = run.path / "run.json"
    if facts.exists() and run.info["state"] == "starting" and time.time() - facts.stat().st_mtime > START_TIMEOUT_S:
        run.update_info(state="failed", reason="whoever started it was gone before its process was; run.resume() starts it")


def command(run: RunDirectory, op: str, **arguments: Any) -> dict[str, Any]:
    """Send a command to the run's supervisor and return its answer.

    Raises RunError when the run is not running, does not answer or refuses.
    """
    with connect(run, op, **arguments) as connection:
        connection.settimeout(COMMAND_TIMEOUT_S)
        answer = next(answers(run, op, connection), {})
    if not answer.get("ok"):
        raise RunError(f"run {run.id[:8]}: {answer.get('error', 'the supervisor closed the connection')}")
    return answer


def connect(run: RunDirectory, op: str, **arguments: Any) -> socket.socket:
    """Send a request to the run's supervisor and return the connection that its answers come on, for the caller to close.

    Raises RunError when the run is not running, or is a simulation.
    """
    from pluralis_lab.engines.swarm.frames import json_frame

    if not is_running(run):
        raise RunError(f"run {run.id[:8]} is not running (state {run.info['state']}); run.resume() starts it again")
    control = read_control(run)
    if control is None or control.get("socket") is None:
        raise RunError(f"run {run.id[:8]} is a simulation, which has no worker processes to {op}")
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(control["socket"])
        connection.sendall(json_frame({"op": op, "token": control["token"], **arguments}))
    except OSError as error:
        connection.close()
        raise RunError(f"run {run.id[:8]} did not take {op!r}: {error}") from None
    return connection


def answers(run: RunDirectory, op: str, connection: socket.socket) -> Generator[dict[str, Any], None, None]:
    """Yield what the supervisor answers until it closes the connection. Raises RunError when nothing sound comes in time."""
    from pluralis_lab.engines.swarm.frames import PREFIX_BYTES

    with connection.makefile("rb") as stream:
        try:
            while prefix := stream.read(PREFIX_BYTES):
                yield dict(json.loads(stream.read(int.from_bytes(prefix, "big"))))
        except (OSError, ValueError) as error:
            raise RunError(f"run {run.id[:8]} did not answer {op!r}: {error}") from None


def stop(run: RunDirectory, *, timeout_s: float = 30.0) -> bool:
    """End the process that owns `run` and wait until it is gone; False when it was not running."""
    control = read_control(run)
    if control is None or not is_running(run):
        return False
    child = _children.pop(run.id, None)
    try:
        process = psutil.Process(control["pid"])
        process.send_signal(signal.SIGTERM)
        if child is not None:
            child.wait(timeout_s)
            _release(child)
        else:
            process.wait(timeout_s)
    except psutil.NoSuchProcess:  # it has ended by itself just now
        if child is not None:
            child.wait(timeout_s)
            _release(child)
    except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
        raise RunError(
            f"run {run.id[:8]} did not stop within {timeout_s:.0f} s; the end of its log:\n{run.log_tail('supervisor')}"
        ) from None
    sweep(run)
    return True


def _release(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


@atexit.register
def _end_children() -> None:
    """End what was to live only as long as this process, and say so."""
    for run_id, child in _children.items():
        if child.stdin is not None and child.poll() is None:
            print(f"pluralis_lab: run {run_id[:8]} ends with this process (lifetime='kernel')", file=sys.stderr)
            _release(child)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(15)
