"""The README's table of benchmarks, written between two marks from what was measured last on this machine."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.result import Result, machine

README = Path(__file__).parents[1] / "README.md"
KEPT = Path(__file__).parents[1] / "build" / "benchmarks"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->"


def keep(name: str, results: Sequence[Result], folder: Path = KEPT) -> None:
    """Keep the figures of benchmark `name` until it is measured again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(one) for one in results], indent=1))


def kept(names: Sequence[str], folder: Path = KEPT) -> list[Result]:
    """Return the figures that are kept of the benchmarks `names`."""
    files = [folder / f"{name}.json" for name in names]
    return [Result(**figure) for file in files if file.exists() for figure in json.loads(file.read_text())]


def write_table(results: Sequence[Result], file: Path = README) -> None:
    """Put the figures that have a target or a peer between the marks of `file`. Raises ValueError where a mark is missing."""
    text = file.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{file} has no marks {BEGIN.strip()!r} and {END!r} to put the table between")
    before, _, rest = text.partition(BEGIN)
    file.write_text(f"{before}{BEGIN}{markdown(results)}{END}{rest.partition(END)[2]}")


def markdown(results: Sequence[Result]) -> str:
    """Return the table, and on what it was measured."""
    lines = ["| figure | measured | target | peer | how |", "|---|---|---|---|---|"]
    for one in results:
        if one.target is None and one.peer is None:
            continue
        sign = ">=" if one.at_least else "<="
        target = "" if one.target is None else f"{sign} {one.target:.3g} {one.unit}".rstrip() + ("" if one.ok else ", missed")
        peer = "" if one.peer is None else f"{one.peer:.3g} {one.unit} ({one.peer_name})"
        note = f"{one.note}; {one.repeats} x".replace("|", "\\|")
        lines.append(f"| `{one.name}` | {one.measured:.3g} {one.unit} | {target} | {peer} | {note} |")
    return "\n".join([*lines, "", f"On {machine()}; medians. `python -m benchmarks NAME` measures one again.", ""])
