"""How `make` sets up: which Python it takes, torch first, and nothing when nothing changed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands in for an interpreter: it can say whether it is supported, make an environment with itself in it, and "install".
PYTHON = """#!/bin/bash
echo "$(basename "$0") $*" >> "$LOG"
case "$1 $2" in
    "-c "*) exit STATUS ;;
    "--version "*) echo "Python 3.12.1" ;;
    "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    "-m pip") ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in ("make", "basename", "mkdir", "cp", "touch"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def _python(clone: Path, name: str, *, supported: bool) -> None:
    script = clone / "bin" / name
    script.write_text(PYTHON.replace("STATUS", "0" if supported else "1"))
    script.chmod(0o755)


def _make(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    variables = {"PATH": str(clone / "bin"), "LOG": str(clone / "log"), "HOME": str(clone)}
    return subprocess.run(["make", *arguments], cwd=clone, env=variables, capture_output=True, text=True, timeout=30, check=False)


def _pip(clone: Path) -> list[str]:
    return [line.partition(" -m pip ")[2] for line in (clone / "log").read_text().splitlines() if " -m pip " in line]


def test_it_stops_with_the_remedy_where_no_python_will_do(clone: Path) -> None:
    _python(clone, "python3.11", supported=False)  # a shim that does not start, or one without venv
    _python(clone, "python3", supported=False)
    done = _make(clone, "setup")
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "python3.11-venv" in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("python3.11", "python3.12", "python3.13"), "python3.11"),
        (("python3.12", "python3.13"), "python3.12"),
        (("python3.13", "python3"), "python3.13"),
        (("python3",), "python3"),
    ],
)
def test_it_takes_the_first_python_that_works(clone: Path, there: tuple[str, ...], taken: str) -> None:
    for name in there:
        _python(clone, name, supported=True)
    assert _make(clone, "setup").returncode == 0
    assert f"{taken} -m venv --clear .venv" in (clone / "log").read_text().splitlines()


def test_torch_comes_first_and_its_source_can_be_chosen(clone: Path) -> None:
    _python(clone, "python3.12", supported=True)
    _make(clone, "setup", "TORCH_SPEC=torch==2.9.1", "PIP_TORCH_ARGS=--index-url file:///somewhere")
    assert _pip(clone) == ["install --quiet --index-url file:///somewhere torch==2.9.1", "install --quiet --editable .[dev]"]


def test_it_installs_again_only_when_pyproject_changed(clone: Path) -> None:
    _python(clone, "python3.12", supported=True)
    assert _make(clone, "setup").returncode == 0
    (clone / "log").unlink()
    assert _make(clone, "setup").returncode == 0
    assert not (clone / "log").exists()
    stamp = (clone / ".venv" / ".installed").stat().st_mtime
    os.utime(clone / "pyproject.toml", (stamp + 10, stamp + 10))
    assert _make(clone, "setup").returncode == 0
    assert len(_pip(clone)) == 2
    assert "-m venv" not in (clone / "log").read_text()


def test_every_promised_target_is_there(clone: Path) -> None:
    for target in (
        "quickstart",
        "lab",
        "ui",
        "wheel",
        "test",
        "lint",
        "lint-ui",
        "test-ui",
        "bench",
        "screenshots",
        "clean",
        "deep",
    ):
        assert _make(clone, "--dry-run", target).returncode == 0, target
