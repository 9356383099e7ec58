"""What a run's process writes about itself (`control.json`), and the clean-up after one that was killed."""

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from pluralis_lab.errors import RunError, StoreError
from pluralis_lab.store import RunDirectory
from pluralis_lab.store.files import write_atomic


def read_control(run: RunDirectory) -> dict[str, Any] | None:
    """Return what the supervisor wrote about itself, None when it has ended in order."""
    try:
        return dict(json.loads((run.path / "control.json").read_bytes()))
    except FileNotFoundError:
        return None


def is_alive(control: dict[str, Any]) -> bool:
    """Say whether the supervisor that wrote `control` runs: the same process, not another that got its number."""
    try:
        process = psutil.Process(control["pid"])
        return abs(process.create_time() - control["started"]) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def write_control(run: RunDirectory, control: dict[str, Any]) -> None:
    """Write `control` (socket or None, token) with this process's identity, readable by its owner alone."""
    me = psutil.Process()
    facts = {**control, "pid": me.pid, "started": me.create_time()}
    write_atomic(run.path / "control.json", json.dumps(facts).encode(), mode=0o600)


def remove_control(run: RunDirectory) -> None:
    """Note that the run's process has ended in order."""
    (run.path / "control.json").unlink(missing_ok=True)


LIVE_STATES = ("starting", "running", "paused", "serving")


def own(run: RunDirectory, descriptors: Sequence[int] = ()) -> None:
    """Make sure that this process has the run: by one of the `descriptors` that it was given, or by itself.

    Raises RunError as `lock` does.
    """
    for descriptor in descriptors:
        if os.path.samestat(os.fstat(descriptor), os.stat(run.path / "lock")):
            return
    lock(run)


def lock(run: RunDirectory) -> int:
    """Take the run for this process and those that inherit the returned descriptor, until all of them have closed it.

    Raises RunError when another process has it: two would write the same events.
    """
    descriptor = os.open(run.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunError(f"run {run.id[:8]} is running already: another process has it; run.stop() ends it") from None
    return descriptor


def sweep(run: RunDirectory) -> bool:
    """Clean up after a supervisor that died; True if there was anything to clean up.

    Its workers are gone already: the kernel kills them with it. The run's state becomes "failed", with the remedy.
    Raises StoreError when the disk does not take that: nothing is lost, and whoever looks next tries again.
    """
    control = read_control(run)
    if control is None or is_alive(control):
        return False
    try:
        descriptor = lock(run)
    except RunError:
        return False  # it is being started anew, or another process sweeps
    try:
        return _clean_up(run)
    except OSError as error:
        raise StoreError(
            f"the process of run {run.id[:8]} is gone, and that cannot be written down ({error.strerror}); make room on the disk"
        ) from error
    finally:
        os.close(descriptor)


def _clean_up(run: RunDirectory) -> bool:
    control = read_control(run)
    if control is None:
        return False
    if control["socket"] is not None:
        shutil.rmtree(Path(control["socket"]).parent, ignore_errors=True)
    state, told = run.info["state"], run.last("run.state")
    if state in LIVE_STATES or (told is not None and told.body["state"] in LIVE_STATES):
        with closing(run.writer()) as writer:
            reason = "its supervisor was killed, or found the disk full; run.resume() goes on from the last checkpoint"
            if state in LIVE_STATES:
                run.update_info(state="failed", reason=reason, pid=None)
            facts = run.info  # where a full disk took this part of the end, the event follows it
            writer.append("run.state", body={"state": facts["state"], "reason": facts["reason"]})
    remove_control(run)
    return True
