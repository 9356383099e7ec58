"""Checks of torch, hivemind and GPUs, each in a child process of its own with a time-out."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import Any

from pluralis_lab.doctor.check import Check
from pluralis_lab.errors import DoctorError

TIMEOUT_S = 90.0


def probe(name: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Run probe `name` (see `probes.py`) in a child process and return what it found.

    Raises DoctorError with the end of the child's output where it fails, and where it takes longer than `timeout_s`. The
    child's whole process group is ended, so that no daemon of hivemind stays.
    """
    command = [sys.executable, "-m", "pluralis_lab.doctor.probes", name]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end_group(child)
        raise DoctorError(f"the check did not end within {timeout_s:.0f} s") from None
    finally:
        _end_group(child)
    if child.returncode != 0:
        raise DoctorError(_last_line(output) or f"the check ended with status {child.returncode}")
    try:
        found: dict[str, Any] = json.loads(_last_line(output))
    except ValueError:
        raise DoctorError(f"the check printed something unexpected: {_last_line(output)[:200]}") from None
    return found


def check_torch() -> Check:
    """Check that torch imports and computes a gradient."""
    try:
        found = probe("torch")
    except DoctorError as error:
        return Check("torch", False, str(error), "pip install torch (other builds: https://pytorch.org/get-started/locally/)")
    return Check("torch", True, f"{found['version']}, {found['threads']} threads, numpy {found['numpy']}")


def check_hivemind() -> Check:
    """Check that hivemind imports, and that its daemon `p2pd` is there and starts."""
    remedy = "pip install --force-reinstall hivemind==1.1.12 (its wheel brings the p2pd daemon)"
    try:
        found = probe("hivemind")
    except DoctorError as error:
        return Check("hivemind", False, str(error), remedy)
    if not found["executable"]:
        return Check("hivemind", False, f"{found['version']}, but its daemon cannot be executed: {found['p2pd']}", remedy)
    return Check("hivemind", True, f"{found['version']}, p2pd started in {found['start_s']:.1f} s")


def check_averaging() -> Check:
    """Check the *values* that hivemind's all-reduce returns: two real peers, against the true mean.

    Its 8-bit compressions are silently wrong on numpy >= 2.4; they are reported, not needed: pluralis_lab does not use them.
    """
    remedy = "hivemind averages wrongly here: pip install --force-reinstall hivemind==1.1.12 'numpy<2.4', then try again"
    try:
        found = probe("averaging")
    except DoctorError as error:
        return Check("averaging", False, str(error), remedy)
    errors: dict[str, float] = found["errors"]
    tolerances = {"none": 1e-6, "float16": 4e-3}
    wrong = [name for name, tolerance in tolerances.items() if not errors[name] <= tolerance]
    measured = ", ".join(f"{name} off by {errors[name]:.1e}" for name in tolerances)
    eight_bit = errors["8-bit"]
    note = "" if eight_bit <= 0.05 else f"; hivemind's 8-bit is off by {eight_bit:.1f}, a known fault: pluralis_lab never uses it"
    return Check("averaging", not wrong, measured + note, remedy if wrong else "")


def check_gpus() -> Check:
    """List GPUs as torch and the NVIDIA driver see them. None is no failure: CPU workers run everywhere."""
    try:
        found = probe("gpus")
    except DoctorError as error:
        return Check("GPUs", False, str(error), "see the torch check; CPU workers are not affected", needed=False)
    usable: list[str] = found["torch"]
    present: list[str] = found["driver"]
    if usable:
        return Check("GPUs", True, "; ".join(usable), needed=False)
    if present:
        detail = f"the driver has {len(present)} ({'; '.join(present)}), torch {found['build']} uses none"
        remedy = "install a CUDA build of torch that fits the driver: https://pytorch.org/get-started/locally/"
        return Check("GPUs", False, detail, remedy, needed=False)
    return Check("GPUs", True, "none; workers run on the CPU", needed=False)


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _end_group(child: "subprocess.Popen[str]") -> None:
    """Kill what is left of the child's session and collect the child itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is empty, as it should be
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
