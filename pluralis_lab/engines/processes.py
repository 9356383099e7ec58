"""Starting, finding, commanding and ending the process that owns a run. Imports neither torch nor hivemind."""

import atexit
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil

from pluralis_lab.engines.control import lock, read_control, sweep
from pluralis_lab.engines.handover import LOG, RunProcess
from pluralis_lab.errors import PluralisError, RunError
from pluralis_lab.store import RunDirectory, list_runs

START_TIMEOUT_S = 180.0
"""Far above what a start takes (2 s, ten times that on a crowded machine): it ends only a wait that has no end."""
COMMAND_TIMEOUT_S = 10.0

_SUPERVISOR = "pluralis_lab.engines.swarm.supervisor_process"
_VIRTUAL = "pluralis_lab.engines.virtual.process"

_children: dict[str, RunProcess] = {}
"""Processes started here, by run id: reaped when they end; with lifetime="kernel" their standard input ends with this one."""


@contextlib.contextmanager
def early_supervisor(home: Path) -> Iterator[RunProcess]:
    """Have a supervisor and its fork server load their libraries while a run of `home` is made ready; ended if none is."""
    process = RunProcess.start(_SUPERVISOR, home)
    try:
        yield process
    finally:
        if not process.has_run:
            process.abandon()


def start_supervisor(
    run: RunDirectory, *, version: int, granted: dict[str, str] | None = None, process: RunProcess | None = None
) -> None:
    """Start the swarm engine's supervisor for `run`, from `version` completed rounds on.

    granted : tokens of the attesters' accounts by name (`Chain.delegate`); they go through a socket and are written nowhere
    process : one that waits already (`early_supervisor`)
    """
    _start(run, _SUPERVISOR, version, granted or {}, process)


def start_virtual(run: RunDirectory, *, version: int, granted: dict[str, str] | None = None) -> None:
    """Start the virtual engine's process for `run`; `granted` as in `start_supervisor`."""
    _start(run, _VIRTUAL, version, granted or {})


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


def _start(run: RunDirectory, module: str, version: int, granted: dict[str, str], process: RunProcess | None = None) -> None:
    keeps = run.info["lifetime"] == "kernel"
    descriptor = _lock_after_its_end(run)
    process = process or RunProcess.start(module, run.path.parent.parent)
    process.hand(run, version=version, granted=granted, lock=descriptor)
    if not keeps:
        process.let_go()
    if (before := _children.pop(run.id, None)) is not None:
        before.let_go()
    _children[run.id] = process
    with process.early:
        _await_start(run, process)


def _await_start(run: RunDirectory, process: RunProcess) -> None:
    """Wait until the process has its run in hand. Raises RunError with the end of its log when it ends instead."""
    end = time.monotonic() + START_TIMEOUT_S
    while read_control(run) is None and process.child.poll() is None:
        if time.monotonic() > end:
            process.child.kill()
            process.child.wait()
            raise _failed_to_start(run, process, f"did not start in {START_TIMEOUT_S:.0f} s")
        time.sleep(0.02)  # another process's file: there is nothing to wait on but the file system
    if process.child.poll() not in (None, 0):
        raise _failed_to_start(run, process, f"ended with status {process.child.returncode}")


def _failed_to_start(run: RunDirectory, process: RunProcess, how: str) -> RunError:
    """Note that the run has failed, so that nobody waits for it, and return the error to raise."""
    log = run.path / "logs" / LOG
    if not log.exists():  # it had not come to its run
        process.early.seek(0)
        log.write_bytes(process.early.read())
    if run.info["state"] == "starting":
        run.update_info(state="failed", reason=f"the run's process {how}", pid=None)
    return RunError(f"the process of run {run.id[:8]} {how}; the end of its log:\n{run.log_tail('supervisor')}")


def is_running(run: RunDirectory) -> bool:
    """Say whether the process that owns `run` is alive; cleans up after one that was killed."""
    child = _children.get(run.id)
    if child is not None and child.child.poll() is not None:
        _children.pop(run.id).let_go()
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
            child.child.wait(timeout_s)
            child.let_go()
        else:
            process.wait(timeout_s)
    except psutil.NoSuchProcess:  # it has ended by itself just now
        if child is not None:
            child.child.wait(timeout_s)
            child.let_go()
    except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
        raise RunError(
            f"run {run.id[:8]} did not stop within {timeout_s:.0f} s; the end of its log:\n{run.log_tail('supervisor')}"
        ) from None
    sweep(run)
    return True


@atexit.register
def _end_children() -> None:
    """End what was to live only as long as this process, and say so."""
    for run_id, process in _children.items():
        if process.line is not None and process.child.poll() is None:
            print(f"pluralis_lab: run {run_id[:8]} ends with this process (lifetime='kernel')", file=sys.stderr)
            process.let_go()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.child.wait(15)
