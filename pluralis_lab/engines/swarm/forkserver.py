"""A warm process that has torch and hivemind loaded and forks a worker in milliseconds.

It has one thread and never touches CUDA, so a fork of it is clean. It speaks JSON lines with its supervisor over an inherited
socket: ``{"log": path}`` and ``{"spawn": name, "log": path, "arguments": {...}}`` in, ``{"ready": true}``, ``{"spawned": name,
"pid": n}`` and ``{"exited": pid, "status": n}`` out.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pluralis_lab.engines.swarm.lifeline import die_with_parent
from pluralis_lab.errors import RunError


def main(descriptor: int, supervisor: int, *, for_one: bool) -> None:
    """Serve until the supervisor's end of the socket closes, then take all workers along."""
    die_with_parent(supervisor)
    preload(for_one=for_one)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    control = socket.socket(fileno=descriptor)
    children: set[int] = set()
    _say(control, {"ready": True})
    pending = b""
    while True:
        readable, _, _ = select.select([control.fileno(), wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 512)
            _reap(control, children)
        if control.fileno() in readable:
            data = control.recv(1 << 16)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if "log" in request and "spawn" not in request:
                    _write_to(request["log"])
                else:
                    children.add(_spawn(control, (wake_read, wake_write), request))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
        _kill_daemon_of(pid)


def preload(*, for_one: bool) -> None:
    """Load here once what every worker needs, without a thread and without CUDA.

    for_one : a single worker is started, as soon as it can be: what it needs later it loads itself, while it waits for others
    """
    gc.disable()  # what is loaded stays: looking through it for garbage, again and again, would take a tenth of the time
    import torch

    with _left_out("scipy.optimize"):  # half a second, for what is not used here
        import hivemind  # noqa: F401

    from pluralis_lab.contributions.keys import keccak
    from pluralis_lab.engines.swarm import worker_process  # noqa: F401
    from pluralis_lab.engines.swarm.compute_thread import load_backward

    if not for_one:
        load_backward()
    torch.set_num_threads(1)
    keccak(b"")
    gc.freeze()  # a worker's own collections would write to every object, and so copy every page that it shares with this process
    gc.enable()


@contextlib.contextmanager
def _left_out(name: str) -> Iterator[None]:
    """Have an import of the module `name` load nothing meanwhile; whoever imports or uses it later gets it."""
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]


def refuse_after_cuda() -> None:
    """Raise RunError where CUDA has been started: a forked process could never use it, and would say so only then."""
    import torch

    if torch.cuda.is_initialized():
        raise RunError("CUDA has been started in the fork server, so no worker can be forked from it; report this as a bug")


def _spawn(control: socket.socket, inherited: tuple[int, int], request: dict[str, Any]) -> int:
    refuse_after_cuda()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        _say(control, {"spawned": request["spawn"], "pid": pid})
        return pid
    # The child must leave by os._exit whatever happens: it must never return into the server's loop.
    status = 1
    try:
        os.setpgid(0, 0)  # its libp2p daemon is in this group too, and is killed with it
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        for descriptor in inherited:
            os.close(descriptor)
        _write_to(request["log"])
        from pluralis_lab.engines.swarm import worker_process
        from pluralis_lab.engines.swarm.namespace import enter_namespace

        if namespace := request["arguments"].get("namespace"):
            enter_namespace(namespace)
        status = worker_process.main(request["arguments"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _write_to(path: str) -> None:
    """Have standard output and error in the file at `path`."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _reap(control: socket.socket, children: set[int]) -> None:
    """Collect every child that has ended and say how."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        children.discard(pid)
        _kill_daemon_of(pid)
        _say(control, {"exited": pid, "status": os.waitstatus_to_exitcode(status)})


def _kill_daemon_of(worker: int) -> None:
    """Kill what a dead worker leaves in its process group: a libp2p daemon that it had no connection to would wait 30 s for one.

    Before its end is told, so that whoever hears of it can remove the daemon's sockets and no new ones come.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), for_one=sys.argv[3:] == ["one"])
    sys.stderr.flush()
    os._exit(0)  # the interpreter's own end, with torch and hivemind loaded, takes a second, which `run.stop()` would wait for
