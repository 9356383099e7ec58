"""`doctor`: is this machine fit for runs? `replay`: does a recorded run come out as it did?"""

import json

import typer

from pluralis_lab.cli.options import JsonOption, RunArgument
from pluralis_lab.cli.printing import find_directory, make_console


def doctor(as_json: JsonOption = False) -> None:
    """Check this machine and say what to do about each failure; status 1 if something that runs need is missing."""
    import dataclasses

    from pluralis_lab.doctor import run_checks
    from pluralis_lab.store import lab_home

    console, failed, rows = make_console(), 0, []
    for check in run_checks(lab_home()):
        failed += not check.ok and check.needed
        rows.append(dataclasses.asdict(check))
        if not as_json:
            mark, style = ("✓", "green") if check.ok else ("✗", "bold red") if check.needed else ("!", "yellow")
            console.print(f"[{style}]{mark}[/] ", end="")
            console.print(f"{check.name:<10} {check.detail}", markup=False, highlight=False, soft_wrap=True)
            if check.remedy and not check.ok:
                console.print(f"             → {check.remedy}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "checks": rows}, indent=1))
    if failed:
        raise typer.Exit(1)


def replay(run: RunArgument, as_json: JsonOption = False) -> None:
    """Go through a run of `launch --recorded` once more, without its network; status 1 if anything comes out otherwise."""
    import dataclasses

    import pluralis_lab as pl

    found = pl.open_run(find_directory(run).id).replay()
    typer.echo(json.dumps({"ok": found.ok, **dataclasses.asdict(found)}) if as_json else str(found))
    if not found.ok:
        raise typer.Exit(1)
