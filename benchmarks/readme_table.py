"""The README's table of benchmarks, written between two marks from what was measured last on this machine."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.result import Result, machine

README = Path(__file__).parents[1] / "README.md"
KEPT = Path(__file__).parents[1] / "build" / "benchmarks"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->"


def keep(name: str, results: Sequence[Result], folder: Path = KEPT) -> None:
    """Keep the figures of benchmark `name` until it is measured again. Raises ValueError for one that is no number."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(as_json([asdict(one) for one in results]))


def as_json(value: Any) -> str:
    """Return `value` as JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(value, indent=1, allow_nan=False)


def kept(names: Sequence[str], folder: Path = KEPT) -> list[Result]:
    """Return the figures that are kept of the benchmarks `names`."""
    files = [folder / f"{name}.json" for name in names]
    return [Result(**figure) for file in files if file.exists() for figure in json.loads(file.read_text())]


def write_table(results: Sequence[Result], file: Path = README) -> None:
    """Put the figures that have a target or a peer, or are shown beside one, between the marks of `file`.

    Rows of benchmarks that `results` has nothing of stay. Raises ValueError where a mark is missing.
    """
    text = file.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{file} has no marks {BEGIN.strip()!r} and {END!r} to put the table between")
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    measured = {one.name.partition(".")[0] for one in results}
    stay = [line for line in table.splitlines() if line.startswith("| `") and _benchmark(line) not in measured]
    file.write_text(f"{before}{BEGIN}{markdown(results, stay)}{END}{after}")


def markdown(results: Sequence[Result], rows: Sequence[str] = ()) -> str:
    """Return the table, with `rows` of other benchmarks in it, and on what it was measured."""
    told = [one for one in results if one.target is not None or one.peer is not None or one.is_missed or one.shown]
    lines = [*rows, *(_row(one) for one in told)]
    lines.sort(key=_benchmark)
    heads = ["| figure | measured | target | peer | how | when |", "|---|---|---|---|---|---|"]
    return "\n".join(
        [
            *heads,
            *lines,
            "",
            f"On {machine()}, and others of its kind; medians. `python -m benchmarks NAME` measures one again.",
            "",
        ]
    )


def _benchmark(row: str) -> str:
    """Return the name of the benchmark that a row of the table is of."""
    return row.removeprefix("| `").partition(".")[0]


def _row(one: Result) -> str:
    sign = ">=" if one.at_least else "<="
    target = "none, missed" if one.is_missed else ""
    if one.target is not None:
        target = f"{sign} {one.target:.3g} {one.unit}".rstrip() + ("" if one.ok else ", missed")
    peer = "" if one.peer is None else f"{one.peer:.3g} {one.unit} ({one.peer_name})"
    note = f"{one.note}; {one.repeats} x".replace("|", "\\|")
    return f"| `{one.name}` | {one.measured:.3g} {one.unit} | {target} | {peer} | {note} | {one.date} |"
