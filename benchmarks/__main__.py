"""Runs one benchmark or all of them; ends with 1 when a target is missed."""

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.result import Result, table

NOT_BENCHMARKS = {"__init__", "__main__", "result", "recorded_run", "viewers", "engine_run"}
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_BENCHMARKS)


def main() -> int:
    """Run what was asked for; each benchmark is a module with ``run(quick: bool) -> list[Result]``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a figure")
    parser.add_argument("--quick", action="store_true", help="a smaller case, to see whether all works")
    arguments = parser.parse_args()
    results: list[Result] = []
    for name in NAMES if arguments.name == "all" else [arguments.name]:
        print(f"== {name}", file=sys.stderr)
        results += importlib.import_module(f"benchmarks.{name}").run(quick=arguments.quick)
    print(json.dumps([one.to_json() for one in results], indent=1) if arguments.json else table(results))
    return 0 if all(one.ok for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
