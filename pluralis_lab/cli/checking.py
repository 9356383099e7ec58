"""`doctor`: is this machine fit for runs?"""

import json

import typer

from pluralis_lab.cli.options import JsonOption
from pluralis_lab.cli.printing import make_console


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
