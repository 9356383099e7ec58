"""Importing is cheap, and the floors of the house hold."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "hivemind", "web3", "pandas", "matplotlib", "plotly", "eth_account", "sklearn", "datasets")


def _cumulative_s(module: str) -> float:
    """Return the seconds that importing `module` takes in a fresh interpreter, as ``-X importtime`` counts them."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"], capture_output=True, text=True, check=True
    )
    times = {
        line.split("|")[2].strip(): int(line.split("|")[1]) for line in done.stderr.splitlines() if re.search(r"\d \|", line)
    }
    return times[module] / 1e6


@pytest.mark.parametrize("module", ["pluralis_lab", "pluralis_lab.cli"])
def test_importing_takes_less_than_three_tenths_of_a_second(module: str) -> None:
    assert min(_cumulative_s(module) for _ in range(5)) < 0.3


LIGHT = ("pluralis_lab", "pluralis_lab.cli", "pluralis_lab.terminal", "pluralis_lab.doctor", "pluralis_lab.launching")


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_supervisor_loads_neither_torch_nor_hivemind() -> None:
    """It starts while the fork server loads both, on a machine that may have two cores."""
    code = "import sys, pluralis_lab.engines.swarm.supervisor; print(*sorted({'torch', 'hivemind', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_floors_hold() -> None:
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert lint is not None
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_floors_notice_an_import_upwards(tmp_path: Path) -> None:
    """The contract can fail: a copy of the package in which a low floor imports a high one is refused."""
    ignore = shutil.ignore_patterns("node_modules", "__pycache__", "static")
    shutil.copytree(ROOT / "pluralis_lab", tmp_path / "pluralis_lab", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "pluralis_lab" / "canonical.py").open("a") as file:
        file.write("\nimport pluralis_lab.store\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from importlinter.cli import lint_imports as lint; sys.exit(lint())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pluralis_lab.canonical is not allowed to import pluralis_lab.store" in done.stdout
