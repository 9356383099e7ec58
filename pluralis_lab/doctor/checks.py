"""All checks in the order they are shown: first the machine, then the libraries."""

from collections.abc import Iterator
from pathlib import Path

from pluralis_lab.doctor.check import Check
from pluralis_lab.doctor.libraries import check_averaging, check_gpus, check_hivemind, check_torch
from pluralis_lab.doctor.machine import check_disk, check_home, check_ports, check_python, check_system


def run_checks(home: Path) -> Iterator[Check]:
    """Yield each check's result as it comes; `home` is ``$PLURALIS_LAB_HOME``. About 12 s, mostly imports."""
    yield check_python()
    yield check_system()
    yield check_home(home)
    yield check_disk(home)
    yield check_ports()
    yield check_torch()
    yield check_hivemind()
    yield check_averaging()
    yield check_gpus()
