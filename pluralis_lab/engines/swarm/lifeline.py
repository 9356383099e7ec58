"""Ties a process's life to its parent's, so that nothing of a run outlives its supervisor."""

import asyncio
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


async def stdin_ended() -> None:
    """Wait until standard input ends, as it does when whoever holds its other end is gone, also after SIGKILL."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when `parent`, the thread that forked it, ends; at once if it has already.

    Linux only (``prctl``). Elsewhere the worker notices at the end of its supervisor's socket.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)
