"""The tutorials after the first notebook, executed as CI does it: they show what a reader wants, and nothing of a library."""

from pathlib import Path

import nbformat
import papermill
import pytest

from tests.homes import shared_home

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if path.name != "00_quickstart.ipynb")


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.stem)
@pytest.mark.timeout(400)
def test_a_tutorial_runs_from_a_clean_home(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    with shared_home():
        papermill.execute_notebook(
            str(notebook),
            str(tmp_path / "out.ipynb"),
            kernel_name="python3",
            language="python",
            cwd=str(ROOT),
            progress_bar=False,
        )
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    shown = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in shown if output.get("name") == "stderr"]
    text = "".join(output.get("text", "") for output in shown)
    assert "\x1b[" not in text
    assert "pluralis1." not in nbformat.writes(executed), "an invitation's secret is in the notebook"
