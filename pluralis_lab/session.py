"""Where this Python runs: with somebody in front of it, or headless under papermill, in a script or in CI."""

import os
import sys
from typing import Any, Literal, cast

from pluralis_lab.errors import RunSpecError

Lifetime = Literal["detached", "kernel"]
"""How long a run lives: on its own, or as long as the process that started it."""

_SERVERS = (
    "jupyter-lab",
    "jupyter-notebook",
    "jupyter-server",
    "jupyterhub-singleuser",
    "jupyter lab",
    "jupyter notebook",
    "jupyter server",
)


def is_interactive() -> bool:
    """Say whether somebody is likely to look at this session and come back to its runs.

    True in a kernel that a notebook front end started and in an IPython or Python prompt; False under papermill and nbconvert,
    in a script, in CI. ``PLURALIS_LAB_HEADLESS`` (1 or 0) decides where the guess is wrong.
    """
    forced = os.environ.get("PLURALIS_LAB_HEADLESS")
    if forced in ("0", "1"):
        return forced == "0"
    if os.environ.get("CI"):
        return False
    shell = _ipython()
    if shell is None:
        return bool(sys.flags.interactive or hasattr(sys, "ps1"))
    if getattr(shell, "kernel", None) is None:
        return sys.stdin.isatty()
    # A front end names the cell that it runs; papermill and nbconvert do not. A console is known by its Jupyter server.
    return bool(shell.get_parent().get("metadata", {}).get("cellId")) or _has_server_as_parent()


def chosen_lifetime(lifetime: str | None) -> Lifetime:
    """Return `lifetime`; for None "detached" where somebody is in front, else "kernel". Raises RunSpecError for another word."""
    if lifetime not in (None, "detached", "kernel"):
        raise RunSpecError(f'lifetime={lifetime!r}; use "detached" or "kernel", or leave it out')
    return cast(Lifetime, lifetime or ("detached" if is_interactive() else "kernel"))


def current_cell() -> int | None:
    """Return the number of the cell that IPython executes now; None outside IPython."""
    shell = _ipython()
    return None if shell is None else int(shell.execution_count)


def _ipython() -> Any:
    module = sys.modules.get("IPython")
    return None if module is None else module.get_ipython()


def _has_server_as_parent() -> bool:
    import psutil

    try:
        command = " ".join(psutil.Process(os.getppid()).cmdline())
    except psutil.Error:
        return False
    return any(server in command for server in _SERVERS)
