"""Programs that write events in a process of their own, so that they can be watched and killed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WRITER = """
import sys
from pathlib import Path
from pluralis_lab.store.events import EventWriter
writer = EventWriter(Path(sys.argv[1]))
for n in range(int(sys.argv[2])):
    seq = writer.append("round", None, n, {"loss": 1.0 / (n + 1), "text": "x" * 200}, time=float(n))
    print(seq, flush=True)
"""


@pytest.fixture
def start_writer() -> Iterator[Callable[[Path, int], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(path), str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
