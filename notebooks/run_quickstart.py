"""Run `00_quickstart.ipynb` through papermill, convert it to HTML, and print where both are, the losses and the owners.

The notebook writes what is printed here to ``result_path``, a JSON object: ``loss_start`` and ``loss_end`` (validation loss,
nats a token), ``unigram_nats``, and ``owners``, a list with one object for each owner. Nothing is taken from cell outputs.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = Path("notebooks/00_quickstart.ipynb")
OUTPUT = Path("build/quickstart")
NEEDED = ("loss_start", "loss_end", "owners")


def execute(notebook: Path, executed: Path, parameters: dict[str, Any]) -> float:
    """Execute `notebook` into `executed` and return the seconds that took; a cell's error is raised."""
    import papermill

    started = time.monotonic()
    papermill.execute_notebook(
        str(notebook),
        str(executed),
        parameters=parameters,
        kernel_name="python3",
        language="python",
        cwd=str(ROOT),
        progress_bar=sys.stderr.isatty(),
        extra_arguments=[
            "--IPKernelApp.log_level=40"
        ],  # ipykernel would warn of its own loopback sockets in everybody's terminal
    )
    return time.monotonic() - started


@contextmanager
def chain_left_as_found() -> Iterator[None]:
    """End the embedded chain's daemon afterwards, unless it was running before; any later call starts it again."""
    from pluralis_lab.chain.place import ChainPlace, home_folder
    from pluralis_lab.chain.provider import stop_daemon

    place = ChainPlace(home_folder())
    connection = place.connect()
    if connection is not None:
        connection.close()
    try:
        yield
    finally:
        if connection is None:
            stop_daemon(place)


def convert(executed: Path, html: Path) -> None:
    """Write the executed notebook as one HTML file."""
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="lab").from_filename(str(executed))
    html.write_text(body, encoding="utf-8")


def owners_table(owners: list[dict[str, Any]]) -> str:
    """Return the owners as text, a line each, columns aligned."""
    columns = list(dict.fromkeys(column for owner in owners for column in owner))
    rows = [columns] + [["" if owner.get(column) is None else str(owner.get(column)) for column in columns] for owner in owners]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def report(result: dict[str, Any], executed: Path, html: Path, seconds: float) -> str:
    """Return what is printed at the end. Raises SystemExit where the notebook did not write what it promised."""
    missing = [name for name in NEEDED if name not in result]
    if missing:
        raise SystemExit(f"the notebook's result has no {', '.join(missing)}; it has {', '.join(sorted(result))}")
    unigram = f"  (unigram entropy {result['unigram_nats']:.3f})" if result.get("unigram_nats") is not None else ""
    return "\n".join(
        [
            f"executed notebook  {executed}  ({seconds:.0f} s)",
            f"as HTML            {html}",
            f"validation loss    {result['loss_start']:.3f} nats at the start, {result['loss_end']:.3f} at the end{unigram}",
            "owners",
            owners_table(result["owners"]),
        ]
    )


def main() -> int:
    """Run the quickstart; status 1 where it took longer than ``--max-seconds``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--max-seconds", type=float, help="fail if executing the notebook takes longer")
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=JSON", help="a parameter of the notebook")
    arguments = parser.parse_args()
    parameters = {name: json.loads(value) for name, _, value in (text.partition("=") for text in arguments.parameter)}

    os.chdir(ROOT)  # so that paths, also those in the executed notebook, are relative
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's kernel, not one that the user installed elsewhere
    OUTPUT.mkdir(parents=True, exist_ok=True)
    executed, html, result = OUTPUT / NOTEBOOK.name, OUTPUT / f"{NOTEBOOK.stem}.html", OUTPUT / "result.json"
    result.unlink(missing_ok=True)  # what is printed must come from this execution
    print(f"executing {NOTEBOOK} (about two minutes)", flush=True)
    with chain_left_as_found():
        seconds = execute(NOTEBOOK, executed, {"result_path": str(result), **parameters})
    convert(executed, html)
    print(report(json.loads(result.read_text()), executed, html, seconds))
    if arguments.max_seconds is not None and seconds > arguments.max_seconds:
        print(f"executing took {seconds:.0f} s, more than {arguments.max_seconds:.0f} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
