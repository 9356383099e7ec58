"""Fixtures of the whole suite: a home of its own for each test, system parts that may be missing, and a check for leaks."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

REQUIRE_SYSTEM = os.environ.get("PLURALIS_REQUIRE_SYSTEM") == "1"
ENABLE_COMMAND = (
    "sudo apt-get install chromium iproute2 fonts-dejavu-core nodejs npm && "
    "make ui quickstart && PLURALIS_REQUIRE_SYSTEM=1 make test"
)
SESSION_VARIABLE = "PLURALIS_LAB_TEST_SESSION"
GRACE_S = 20.0

# hivemind makes torch share tensors through a manager process of its own, and `datasets` shares one: then that process would be
# a leak of this one. File descriptors need no process.
os.environ.setdefault("HIVEMIND_MEMORY_SHARING_STRATEGY", "file_descriptor")

# The cores are shared with whatever else runs: a slow example says nothing about the code.
settings.register_profile("shared cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared cores")

_missing_parts: set[str] = set()
_leaks: list[str] = []


# --- parts of the system -----------------------------------------------------------------------------------------------


def _can_make_namespaces() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        return False
    name = f"pl-test-{os.getpid()}"  # root in a container may have no right to make them
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    return made


SYSTEM_PARTS: dict[str, tuple[Callable[[], bool], str]] = {
    "compiler": (lambda: any(shutil.which(name) for name in ("g++", "c++", "clang++")), "apt-get install g++"),
    "chromium": (lambda: shutil.which("chromium") is not None, "apt-get install chromium fonts-dejavu-core"),
    "netns": (_can_make_namespaces, "apt-get install iproute2, and run as root"),
    "npm": (lambda: shutil.which("npm") is not None, "apt-get install nodejs npm"),
}


def _require_system(name: str, available: bool, remedy: str) -> None:
    """Go on where the part is there; else skip, or fail where CI says that every part must be there."""
    if available:
        return
    if REQUIRE_SYSTEM:
        pytest.fail(f"PLURALIS_REQUIRE_SYSTEM=1, but {name} is missing: {remedy}", pytrace=False)
    _missing_parts.add(name)
    pytest.skip(f"needs {name}: {remedy}")


@pytest.fixture(scope="session")
def require_system() -> Callable[[str, bool, str], None]:
    """Return ``require_system(name, available, remedy)`` for a part that ``@pytest.mark.system(name)`` does not know."""
    return _require_system


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Resolve ``@pytest.mark.system("chromium", ...)`` and ``@pytest.mark.gpu`` before a test's fixtures are made."""
    for marker in item.iter_markers("system"):
        for name in marker.args:
            is_available, remedy = SYSTEM_PARTS[name]
            _require_system(name, is_available(), remedy)
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


# --- cases of which a few are drawn ------------------------------------------------------------------------------------


def pytest_configure() -> None:
    """Choose the seed before there are test processes, which inherit it, also where no header says it (-q)."""
    from tests.drawing import choose_seed

    choose_seed()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say the seed, which draws the same cases again."""
    from tests.drawing import SEED_VARIABLE, choose_seed, draws

    what = "some tests run a few of their cases (make deep: all)" if draws(config) else "every case runs"
    return [f"{SEED_VARIABLE}={choose_seed()}: {what}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a few cases of the tests that have many (`tests/drawing.py`)."""
    from tests.drawing import draws, keep_drawn

    if draws(config):
        keep_drawn(config, items)


# --- two test processes (pytest -n 2) ----------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep apart what would disturb each other (`tests/lanes.py`)."""
    from tests.lanes import LaneScheduling

    return LaneScheduling(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints the summary which parts were missing, where this is one of its test processes."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["missing_parts"] = sorted(_missing_parts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Hear what a test process has to say at its end; one that crashed says nothing."""
    _missing_parts.update(getattr(node, "workeroutput", {}).get("missing_parts", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line how to enable what was skipped for a missing part, and name every leak."""
    if _missing_parts:
        terminalreporter.write_line(f"skipped for missing system parts ({', '.join(sorted(_missing_parts))}): {ENABLE_COMMAND}")
    for leak in _leaks:
        terminalreporter.write_line(f"leak: {leak}", red=True)


# --- homes and leaks ---------------------------------------------------------------------------------------------------


def _processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Return the live processes, other than this one, that were started with ``variable=value`` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(variable) == value and not _is_helper_of_python(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            continue
    return found


def _is_helper_of_python(process: psutil.Process) -> bool:
    """Say whether this is multiprocessing's own helper of the test process, which ends with it."""
    command = " ".join(process.cmdline())
    return process.ppid() == os.getpid() and ("resource_tracker" in command or "multiprocessing.forkserver" in command)


def _describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid}: {' '.join(process.cmdline())[:160]}"
    except psutil.Error:
        return f"process {process.pid}"


def _survivors(find: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Return what `find` still finds after a grace time: an orderly end takes a moment."""
    deadline = time.monotonic() + GRACE_S
    while (processes := find()) and time.monotonic() < deadline:
        psutil.wait_procs(processes, timeout=0.2)
    return processes


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)


@pytest.fixture
def lab_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test a ``$PLURALIS_LAB_HOME`` of its own, and fail it if it leaves a process of that home behind.

    The path is short, because a socket's path may have 107 characters. The chain daemon outlives runs by design: it is
    ended here, with SIGTERM, and must obey.
    """
    home = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    monkeypatch.setenv("PLURALIS_LAB_HOME", str(home))
    yield home
    daemons = [p for p in _processes_with("PLURALIS_LAB_HOME", str(home)) if "pluralis_lab.chain" in _describe(p)]
    for daemon in daemons:
        daemon.terminate()
    left = _survivors(lambda: _processes_with("PLURALIS_LAB_HOME", str(home)))
    descriptions = [_describe(process) for process in left]
    _kill(left)
    shutil.rmtree(home, ignore_errors=True)
    if descriptions:
        pytest.fail("left running: " + "; ".join(descriptions), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail the session if a process that it started, or a zombie of one, is still there at its end."""
    token = uuid.uuid4().hex
    os.environ[SESSION_VARIABLE] = token
    yield
    left = _survivors(lambda: _processes_with(SESSION_VARIABLE, token))
    _leaks.extend(_describe(process) for process in left)
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() == psutil.STATUS_ZOMBIE and child.name() == "p2pd":
                _leaks.append(f"zombie {child.pid}: {child.name()}")
        except psutil.NoSuchProcess:
            continue
    _kill(left)
    if _leaks:
        pytest.fail("the session left behind: " + "; ".join(_leaks), pytrace=False)
