"""How runs, tables and errors look in a terminal."""

import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from pluralis_lab import errors
from pluralis_lab.errors import PluralisError, RunError

if TYPE_CHECKING:
    from rich.console import Console

    from pluralis_lab.store import RunDirectory


def find_directory(prefix: str | None) -> "RunDirectory":
    """Return the run whose id begins with `prefix`; None: the newest. Raises RunError."""
    from pluralis_lab.store import find_run, list_runs

    if prefix is not None:
        return find_run(prefix)
    every = list_runs()
    if not every:
        raise RunError("there are no runs yet; start one with: pluralis-lab launch")
    return every[-1]


def summary(run: "RunDirectory") -> dict[str, Any]:
    """Return what lists show of a run."""
    from pluralis_lab.engines import processes

    processes.is_running(run)  # writes down the end of a supervisor that was killed
    info, last = run.info, run.last("round")
    return {
        "id": run.id,
        "state": info["state"],
        "engine": info.get("engine"),
        "data": run.spec.data,
        "workers": len(info.get("workers") or ()),
        "rounds": 0 if last is None or last.round is None else last.round + 1,
        "steps": run.spec.steps,
        "loss": None if last is None else last.body.get("loss"),
        "created": info.get("created"),
    }


def show_end(run: "RunDirectory") -> None:
    """Print how a run ended."""
    row = summary(run)
    loss = "" if row["loss"] is None else f", loss {row['loss']:.3f} nats"
    typer.echo(f"{row['state']} after {row['rounds']} of {row['steps']} rounds{loss}")


def make_console() -> "Console":
    """Return a console on standard output."""
    from rich.console import Console

    return Console()


def print_frame(frame: Any) -> None:
    """Print a pandas table without its exact wei columns."""
    rows = frame.reset_index(drop=True).to_dict("records")
    print_table(rows, tuple(column for column in frame.columns if not column.endswith("_wei")))


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print rows as an aligned table, numbers to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers: tuple[Literal["left"], Literal["right"]] = ("left", "right")
    for column in columns:
        is_number = any(isinstance(row.get(column), int | float | Decimal) for row in rows)
        table.add_column(column, justify=numbers[is_number], overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    make_console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def fail(error: PluralisError) -> NoReturn:
    """Print the error as one red line, under the name of its public kind, and exit with status 1."""
    from rich.console import Console

    message = " ".join(str(error).split())
    public = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    Console(stderr=True).print(f"{public}: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)
