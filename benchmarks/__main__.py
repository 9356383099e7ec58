"""Runs one benchmark or all of them; ends with 1 when a target is missed.

What was measured is kept in build/benchmarks. ``all`` writes the README's table, too, and ``table`` writes it from what is kept;
rows of benchmarks of which nothing is kept stay as they are.
"""

import argparse
import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.readme_table import as_json, keep, kept, write_table
from benchmarks.result import Result, table

NOT_BENCHMARKS = {"__init__", "__main__", "result", "readme_table", "recorded_run", "viewers", "engine_run", "shaped"}
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_BENCHMARKS)


def main() -> int:
    """Run what was asked for; each benchmark is a module with ``run(quick: bool) -> list[Result]``, its headline first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all", "table"])
    parser.add_argument("--json", action="store_true", help="print a JSON object; with `all` a list of them")
    parser.add_argument("--quick", action="store_true", help="a smaller case, to see whether all works")
    arguments = parser.parse_args()
    if arguments.name == "table":
        write_table(kept(NAMES))
        return 0
    by_name: dict[str, list[Result]] = {}
    failed: dict[str, str] = {}
    for name in NAMES if arguments.name == "all" else [arguments.name]:
        print(f"== {name}", file=sys.stderr)
        with contextlib.redirect_stdout(sys.stderr):  # what a run shows of itself; the figures alone go to standard output
            try:
                measured = importlib.import_module(f"benchmarks.{name}").run(quick=arguments.quick)
                if not arguments.quick:
                    keep(name, measured)
                by_name[name] = measured
            except Exception as error:  # what one of them lacks (root, Chromium) must not cost the others' figures
                if arguments.name != "all":
                    raise
                failed[name] = f"{type(error).__name__}: {error}"
                print(f"{name} was not measured: {failed[name]}", file=sys.stderr)
                continue
    results = [one for some in by_name.values() for one in some]
    if arguments.json:
        objects = [as_object(name, some) for name, some in by_name.items()]
        print(as_json(objects if arguments.name == "all" else objects[0]))
    else:
        print(table(results))
    if arguments.name == "all" and not arguments.quick:
        write_table(kept(NAMES))
    for name, why in failed.items():
        print(f"not measured: {name} ({why})", file=sys.stderr)
    return 0 if all(one.ok for one in results) and not failed else 1


def as_object(name: str, results: list[Result]) -> dict[str, Any]:
    """Return one benchmark as one object: its headline figure, whether all of its targets are met, and every figure.

    Where the headline is a share of a peer's figure and so has no peer itself, "peer" and "ratio" are of the figure that has.
    """
    beside = next((one for one in results if one.peer is not None), results[0]).to_json()
    return {
        **results[0].to_json(),
        **{key: beside[key] for key in ("peer", "peer_name", "ratio")},
        "name": name,
        "ok": all(one.ok for one in results),
        "figures": [one.to_json() for one in results],
    }


if __name__ == "__main__":
    sys.exit(main())
