"""Checks of the machine itself: Python, system, home folder, disk, ports."""

import os
import platform
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pluralis_lab.doctor.check import Check

SUPPORTED_PYTHONS = ((3, 11), (3, 12), (3, 13))
NEEDED_DISK_BYTES = 2 * 2**30
NUM_PORTS = 16


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Check that hivemind supports this Python: 3.14 breaks it (pydantic.v1, the default start method)."""
    found = f"Python {version[0]}.{version[1]} ({platform.python_implementation()})"
    if version in SUPPORTED_PYTHONS:
        return Check("Python", True, found)
    return Check("Python", False, found, "use Python 3.11, 3.12 or 3.13: hivemind does not work on others")


def check_system(system: str = sys.platform, machine: str | None = None) -> Check:
    """Check the operating system. hivemind's wheel, with its daemon, is for Linux on x86-64; the others are not tested."""
    machine = machine or platform.machine()
    found = f"{system} {machine}"
    if system == "linux" and machine in ("x86_64", "AMD64"):
        return Check("System", True, found, needed=False)
    remedy = "Linux on x86-64 is what is tested; elsewhere hivemind may have to be built from source"
    return Check("System", False, found, remedy, needed=False)


def check_home(home: Path) -> Check:
    """Check that the home folder can be made and written, and that nobody else can write it."""
    remedy = f"make it yours (chown, chmod 700 {home}) or set PLURALIS_LAB_HOME to a folder that is"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home):
            pass
    except OSError as error:
        return Check("Home", False, f"{home} cannot be written ({error})", remedy)
    facts = home.stat()
    if facts.st_uid != os.getuid():
        return Check("Home", False, f"{home} belongs to user {facts.st_uid}, not to {os.getuid()}", remedy)
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(facts.st_mode)
        return Check("Home", False, f"{home} can be written by others (mode {mode:o})", remedy)
    return Check("Home", True, str(home))


def check_disk(home: Path, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> Check:
    """Check that the file system of `home` (or of its nearest parent that exists) has room for checkpoints and data."""
    place = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = free_bytes(place)
    detail = f"{free / 2**30:.1f} GiB free at {place}"
    if free >= NEEDED_DISK_BYTES:
        return Check("Disk", True, detail)
    need = f"{NEEDED_DISK_BYTES / 2**30:.0f} GiB"
    return Check("Disk", False, detail, f"free at least {need}, or set PLURALIS_LAB_HOME to a larger disk")


def check_ports(bind: Callable[[socket.socket], None] = lambda port: port.bind(("127.0.0.1", 0))) -> Check:
    """Check that workers will get ports: bind and connect over loopback, `NUM_PORTS` at once."""
    held: list[socket.socket] = []
    try:
        for _ in range(NUM_PORTS):
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.append(server)
            bind(server)
            server.listen(1)
            held.append(socket.create_connection(server.getsockname(), timeout=2))
    except OSError as error:
        remedy = "allow processes to listen on 127.0.0.1 (firewall, sandbox, or `ulimit -n` too small)"
        return Check("Ports", False, f"no loopback port could be used ({error})", remedy)
    finally:
        for endpoint in held:
            endpoint.close()
    return Check("Ports", True, f"{NUM_PORTS} loopback ports bound and reached")
