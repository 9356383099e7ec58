"""The guards of the suite itself can fail: each is tried in a small suite of its own with a copy of our conftest."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = ROOT / "tests" / "conftest.py"


@pytest.fixture
def run_suite(tmp_path: Path) -> "SuiteRunner":
    conftest = CONFTEST.read_text()
    assert "GRACE_S = 20.0" in conftest
    (tmp_path / "conftest.py").write_text(conftest.replace("GRACE_S = 20.0", "GRACE_S = 0.3"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    system\n    gpu\n    deep\n    drawn\n")
    return SuiteRunner(tmp_path)


class SuiteRunner:
    """Runs the text of a test module as a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, code: str, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        (self.folder / "test_inner.py").write_text(code)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLURALIS_", "PYTEST_"))}
        kept["PYTHONPATH"] = str(ROOT)  # where our conftest finds what it imports
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "--rootdir",
            str(self.folder),
            *(options or [str(self.folder)]),
        ]
        return subprocess.run(
            command, cwd=self.folder, env=kept | variables, capture_output=True, text=True, timeout=60, check=False
        )


def _pid(folder: Path) -> int:
    return int((folder / "pid").read_text())


LEAK = """
import subprocess, sys
from pathlib import Path
def leave_one():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    (Path(__file__).parent / "pid").write_text(str(process.pid))
"""


def test_a_process_that_outlives_the_session_fails_it_and_is_ended(run_suite: SuiteRunner) -> None:
    done = run_suite(LEAK + "def test_it():\n    leave_one()\n")
    assert done.returncode == 1
    assert f"the session left behind: process {_pid(run_suite.folder)}" in done.stdout
    assert not psutil.pid_exists(_pid(run_suite.folder))


def test_a_process_that_outlives_its_home_fails_the_test_that_made_it(run_suite: SuiteRunner) -> None:
    done = run_suite(LEAK + "def test_it(lab_home):\n    assert lab_home.is_dir()\n    leave_one()\n")
    assert done.returncode == 1
    assert f"left running: process {_pid(run_suite.folder)}" in done.stdout
    assert "the session left behind" not in done.stdout


def test_a_tidy_suite_passes(run_suite: SuiteRunner) -> None:
    code = "import subprocess, sys\ndef test_it(lab_home):\n    subprocess.run([sys.executable, '-c', ''], check=True)\n"
    done = run_suite(code)
    assert done.returncode == 0
    assert "skipped for missing" not in done.stdout


MISSING = """
import pytest
def test_known(require_system):
    require_system("a flux capacitor", False, "apt-get install flux")
def test_there(require_system):
    require_system("a keyboard", True, "")
@pytest.mark.system("chromium")
def test_marked():
    pass
"""


def test_a_missing_part_skips_and_one_line_says_what_enables_it(run_suite: SuiteRunner) -> None:
    done = run_suite(MISSING, PATH="")
    assert done.returncode == 0
    assert "1 passed, 2 skipped" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("skipped for missing system parts")]
    assert len(lines) == 1
    assert "(a flux capacitor, chromium): sudo apt-get install" in lines[0]


def test_a_missing_part_fails_where_every_part_must_be_there(run_suite: SuiteRunner) -> None:
    done = run_suite(MISSING, PATH="", PLURALIS_REQUIRE_SYSTEM="1")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 error" in done.stdout
    assert "PLURALIS_REQUIRE_SYSTEM=1, but a flux capacitor is missing: apt-get install flux" in done.stdout


CASES = """
import pytest
@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("case", range(20))
def test_of_many(case):
    print(f"ran {case}!")
@pytest.mark.drawn("a group", keep=1)
def test_one():
    print("ran one!")
@pytest.mark.drawn("a group", keep=1)
def test_other():
    print("ran other!")
def test_of_every_time():
    print("ran always!")
"""


def _ran(done: "subprocess.CompletedProcess[str]") -> list[str]:
    assert done.returncode == 0, done.stdout
    return sorted(re.findall(r"ran (\w+)!", done.stdout))


def test_a_few_cases_are_drawn_by_a_seed_that_is_said(run_suite: SuiteRunner) -> None:
    first = run_suite(CASES, "-v", "-s", "-m", "not deep")  # quiet otherwise
    (seed,) = re.findall(r"PLURALIS_TEST_SEED=(\d+)", first.stdout)
    ran = _ran(first)
    assert len(ran) == 4
    assert "always" in ran
    assert len({"one", "other"} & set(ran)) == 1
    assert _ran(run_suite(CASES, "-s", "-m", "not deep", PLURALIS_TEST_SEED=seed)) == ran
    others = [_ran(run_suite(CASES, "-s", "-m", "not deep", PLURALIS_TEST_SEED=str(other))) for other in range(4)]
    assert any(other != ran for other in others)


def test_every_case_runs_where_deep_tests_do_and_one_that_is_named_always(run_suite: SuiteRunner) -> None:
    assert len(_ran(run_suite(CASES, "-s", "-m", "deep or not deep"))) == 23
    assert _ran(run_suite(CASES, "-s", "-m", "not deep", "test_inner.py::test_of_many[7]")) == ["7"]


def test_two_processes_draw_the_same_and_tell_what_is_missing(run_suite: SuiteRunner) -> None:
    code = (
        CASES
        + """
@pytest.mark.system("chromium")
def test_in_a_browser():
    pass
"""
    )
    # A path without chromium; Python itself is called by its own.
    done = run_suite(code, "-n", "2", "-m", "not deep", PATH="/nowhere")
    assert done.returncode == 0, done.stdout
    assert "4 passed, 1 skipped" in done.stdout
    assert "skipped for missing system parts (chromium): " in done.stdout
