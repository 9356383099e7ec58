"""The script behind `make quickstart`: what it prints, and what it does not let pass."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(tmp_path: Path, lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module whose root is a folder of the test's own."""
    spec = importlib.util.spec_from_file_location("run_quickstart", ROOT / "notebooks" / "run_quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    return module


def _write_notebook(folder: Path, code: str) -> None:
    parameters = nbformat.v4.new_code_cell('result_path = ""', metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, folder / "notebooks" / "00_quickstart.ipynb")


RESULT: dict[str, Any] = {
    "loss_start": 5.5,
    "loss_end": 2.25,
    "unigram_nats": 3.15,
    "owners": [{"account": "lab-a", "percent": 60.5}, {"account": "b", "percent": 39.5}],
}


def test_it_prints_the_files_the_losses_and_the_owners(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_notebook(tmp_path, f"import json; json.dump({RESULT!r}, open(result_path, 'w'))")
    monkeypatch.setattr(sys, "argv", ["run_quickstart.py"])
    assert script.main() == 0
    printed = capsys.readouterr().out
    assert "build/quickstart/00_quickstart.ipynb" in printed
    assert "5.500 nats at the start, 2.250 at the end  (unigram entropy 3.150)" in printed
    assert "account  percent\nlab-a    60.5\nb        39.5" in printed
    assert (tmp_path / "build/quickstart/00_quickstart.ipynb").exists()
    assert "<html" in (tmp_path / "build/quickstart/00_quickstart.html").read_text()
    assert json.loads((tmp_path / "build/quickstart/result.json").read_text()) == RESULT
    monkeypatch.setattr(sys, "argv", ["run_quickstart.py", "--max-seconds", "0.001"])
    assert script.main() == 1


def test_the_chain_is_left_as_it_was_found(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab_home: Path
) -> None:
    from pluralis_lab.chain.place import ChainPlace

    start = "from pluralis_lab.chain.place import ChainPlace, home_folder; ChainPlace(home_folder()).connect_or_start().close()"
    _write_notebook(tmp_path, f"{start}\nimport json; json.dump({RESULT!r}, open(result_path, 'w'))")
    monkeypatch.setattr(sys, "argv", ["run_quickstart.py"])
    place = ChainPlace(lab_home)
    assert script.main() == 0
    assert place.connect() is None
    place.connect_or_start().close()
    assert script.main() == 0
    connection = place.connect()
    assert connection is not None
    connection.close()


def test_an_old_result_is_never_shown(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_notebook(tmp_path, "pass")
    (tmp_path / "build" / "quickstart").mkdir(parents=True)
    (tmp_path / "build" / "quickstart" / "result.json").write_text(json.dumps(RESULT))
    monkeypatch.setattr(sys, "argv", ["run_quickstart.py"])
    with pytest.raises(FileNotFoundError):
        script.main()


def test_a_result_without_owners_is_refused(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no owners"):
        script.report({"loss_start": 1.0, "loss_end": 0.5}, Path("a"), Path("b"), 1.0)
