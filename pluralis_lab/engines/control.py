"""What a run's process writes about itself (`control.json`), and the clean-up after one that was killed."""

import contextlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

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
    """Write `control` (socket or None, token, sockets by worker) with this process's identity, readable by its owner alone."""
    me = psutil.Process()
    facts = {**control, "pid": me.pid, "started": me.create_time()}
    write_atomic(run.path / "control.json", json.dumps(facts).encode(), mode=0o600)


def remove_control(run: RunDirectory) -> None:
    """Note that the run's process has ended in order."""
    (run.path / "control.json").unlink(missing_ok=True)


def remove_sockets(paths: Iterable[str]) -> None:
    """Remove socket files of hivemind's daemons, which a killed worker cannot."""
    for path in paths:
        if Path(path).name.startswith("hivemind-p2p"):
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()


def sweep(run: RunDirectory) -> bool:
    """Clean up after a supervisor that died; True if there was anything to clean up.

    Its workers are gone already: the kernel kills them with it. The run's state becomes "failed", with the remedy.
    """
    control = read_control(run)
    if control is None or is_alive(control):
        return False
    remove_sockets(path for paths in control["sockets"].values() for path in paths)
    if control["socket"] is not None:
        shutil.rmtree(Path(control["socket"]).parent, ignore_errors=True)
    remove_control(run)
    if run.info["state"] in ("starting", "running", "serving"):
        writer = run.writer()
        reason = "its supervisor was killed; run.resume() goes on from the last checkpoint"
        run.update_info(state="failed", reason=reason, pid=None)
        writer.append("run.state", body={"state": "failed", "reason": reason})
        writer.close()
    return True
