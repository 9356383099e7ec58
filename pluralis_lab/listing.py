"""Which runs there are: all of a home as a table, one of them by the beginning of its id."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluralis_lab.engines import processes
from pluralis_lab.errors import PluralisError, RunError
from pluralis_lab.run import Run
from pluralis_lab.store import RunDirectory, find_run, lab_home, list_runs

if TYPE_CHECKING:
    import pandas as pd


def open_run(run_id: str, *, home: str | Path | None = None) -> Run:
    """Return the run whose id begins with `run_id`. Raises RunError when there is none, or more than one."""
    if not isinstance(run_id, str):
        raise RunError(f"open_run({run_id!r}): give a run's id as text, or its beginning; pl.runs() lists them")
    run = Run(find_run(run_id.strip(), lab_home(home)))
    processes.is_running(run._directory)
    return run


def runs(*, home: str | Path | None = None) -> "pd.DataFrame":
    """Return all runs of this home, newest first: state, engine, when it was made (UTC), data, workers, rounds done, loss."""
    import pandas as pd

    rows = [_row(directory) for directory in reversed(list_runs(lab_home(home)))]
    columns = ["run", "state", "engine", "created", "data", "workers", "rounds", "steps", "loss"]
    return pd.DataFrame(rows, columns=columns).set_index("run")


def _row(directory: RunDirectory) -> dict[str, Any]:
    """Return a run as a row; one that cannot be read is shown as damaged and hides none of the others."""
    import pandas as pd

    try:
        processes.is_running(directory)
        info, spec, last = directory.info, directory.spec, directory.last("round")
    except PluralisError:
        return {"run": directory.id[:8], "state": "damaged"}
    return {
        "run": directory.id[:8],
        "state": info["state"],
        "engine": info["engine"],
        "created": pd.Timestamp(info["created"], unit="s").round("s"),
        "data": spec.data,
        "workers": spec.num_workers,
        "rounds": 0 if last is None or last.round is None else last.round + 1,
        "steps": spec.steps,
        "loss": None if last is None else last.body["loss"],
    }
