"""Notebooks executed as CI does it: through papermill, without anybody who could see a widget."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.browser.labserver import ROOT


def executed_by_papermill(cells: Sequence[str], folder: Path, home: Path) -> Any:
    """Return a notebook of code `cells` with their outputs, executed on the runs of `home`; a cell's error is raised."""
    import nbformat
    import papermill

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    nbformat.write(notebook, folder / "in.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        patch.setenv("PLURALIS_LAB_HOME", str(home))
        papermill.execute_notebook(
            str(folder / "in.ipynb"),
            str(folder / "out.ipynb"),
            kernel_name="python3",
            language="python",
            cwd=str(ROOT),
            progress_bar=False,
        )
    return nbformat.read(folder / "out.ipynb", as_version=4)
