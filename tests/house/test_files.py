"""What is committed: a licence, no machine's own paths, no registry's name, no outputs in notebooks, a wheel with everything."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".ipynb", ".json", ".sol", ".js", ".mjs", ".ts", ".css", ".lock", ""}
# Built from pieces, so that this file does not contain what it looks for.
FORBIDDEN = [
    re.compile("/" + r"(?:home|Users|root|work)/\w+"),
    re.compile(r"\b(?:registry\.npmjs|registry\.yarnpkg|files\.pythonhosted|conda\.anaconda)" + r"\.\w+"),
]


def _committed() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in _committed():
        if path.suffix in TEXT_SUFFIXES and path.name != "LICENSE":
            text = path.read_text(errors="replace")
            found += [f"{path.relative_to(ROOT)}: {match.group(0)}" for pattern in FORBIDDEN for match in pattern.finditer(text)]
    assert not found


def test_notebooks_are_committed_without_outputs_and_with_tagged_parameters() -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells), path.name
        assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1, path.name


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_ci_is_executable_bash_that_stops_at_errors() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 == 0o111
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in script.read_text()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_the_wheel_carries_the_data_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    # Without the JupyterLab extension, whose build needs Node.
    subprocess.run(build, check=True, capture_output=True, timeout=110, env={**os.environ, "SKIP_JUPYTER_BUILDER": "1"})
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {
        str(path.relative_to(ROOT))
        for path in _committed()
        if path.is_relative_to(ROOT / "pluralis_lab") and path.suffix != ".pyc"
    }
    assert inside <= names
    assert not [name for name in names if "node_modules" in name or name.startswith(("tests/", "notebooks/"))]
    assert any(name.startswith("pluralis_lab/chain/artifacts/") for name in names)


def test_the_leak_check_of_ci_notices_a_process_and_a_socket(tmp_path: Path) -> None:
    script = (ROOT / "tests" / "house" / "leak_check.py").read_text().replace("GRACE_S = 8.0", "GRACE_S = 0.3")
    (tmp_path / "leak_check.py").write_text(script)
    home = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    variables = {**os.environ, "PLURALIS_LAB_CI_SESSION": "test-" + tmp_path.name, "PLURALIS_LAB_HOME": str(home)}

    def check(command: str) -> "subprocess.CompletedProcess[str]":
        arguments = [sys.executable, str(tmp_path / "leak_check.py"), command, str(tmp_path / "before.json")]
        return subprocess.run(arguments, env=variables, capture_output=True, text=True, check=False)

    assert check("snapshot").returncode == 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "s.sock"))
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=variables, start_new_session=True)
        done = check("compare")
        child.communicate(b"\n")
    assert done.returncode == 1
    assert f"LEAK process {child.pid}" in done.stdout
    assert f"LEAK left: {home / 's.sock'}" in done.stdout
    shutil.rmtree(home)
    assert f"LEAK process {child.pid}" not in check("compare").stdout
