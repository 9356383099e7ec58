"""Says what a CI run left behind: processes, sockets and shared memory that were not there before.

Usage: ``leak_check.py snapshot FILE`` before, ``leak_check.py compare FILE`` after; the latter exits with 1 and a line for
each leak. A process is ours when it inherited ``PLURALIS_LAB_CI_SESSION``; the shell that runs CI, its ancestors and its
children up to this script are not leaks.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

SESSION_VARIABLE = "PLURALIS_LAB_CI_SESSION"
GRACE_S = 8.0


def our_processes() -> dict[int, str]:
    """Return the processes of this CI session, by id, without the chain of parents that leads to this script."""
    token = os.environ.get(SESSION_VARIABLE)
    expected = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = {}
    for process in psutil.process_iter():
        try:
            name = process.name()
            if process.pid in expected:
                continue
            zombie = process.status() == psutil.STATUS_ZOMBIE and name == "p2pd"
            if zombie or (token and process.environ().get(SESSION_VARIABLE) == token):
                found[process.pid] = "zombie p2pd" if zombie else " ".join(process.cmdline())[:160]
        except (psutil.Error, OSError):
            continue
    return found


def shared_state() -> list[str]:
    """Return the shared-memory segments, sockets and socket folders of this user that a run could have made."""
    home, temporary = os.environ.get("PLURALIS_LAB_HOME"), Path(tempfile.gettempdir())
    found = list(Path("/dev/shm").glob("*"))
    found += [path for folder in {temporary, Path("/tmp")} for path in folder.glob("*") if path.is_socket()]
    shared = temporary / f"pluralis-lab-{os.geteuid()}"  # of all homes with long paths: it stays, what is in it must not
    found += [path for path in temporary.glob("pluralis-*") if path != shared]
    found += shared.glob("*")
    if home:
        found += [path for path in Path(home).rglob("*") if path.is_socket()]
    return sorted(str(path) for path in found if _is_ours(path))


def _is_ours(path: Path) -> bool:
    """Say whether this user made `path`; somebody else on the machine may run the same things."""
    try:
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False  # gone while we looked


def leaks(before: dict[str, list[object]]) -> list[str]:
    """Return a line for each process, socket and segment that is new since `before`."""
    processes = [f"process {pid}: {command}" for pid, command in our_processes().items() if pid not in before["processes"]]
    return processes + [f"left: {path}" for path in shared_state() if path not in before["shared"]]


def main() -> int:
    """Take or compare a snapshot; return the exit status."""
    command, file = sys.argv[1], Path(sys.argv[2])
    if command == "snapshot":
        file.write_text(json.dumps({"processes": list(our_processes()), "shared": shared_state()}))
        return 0
    before = json.loads(file.read_text())
    deadline = time.monotonic() + GRACE_S
    while (found := leaks(before)) and time.monotonic() < deadline:
        time.sleep(0.25)  # an orderly end takes a moment, and nothing reports it to a stranger
    for leak in found:
        print(f"LEAK {leak}")
    print("no leaks" if not found else f"{len(found)} leaks")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
