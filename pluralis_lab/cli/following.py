"""`runs`, `watch`, `stop`, `resume`, `delete`: what there is, how it goes, and its end."""

import json
from typing import Annotated

import typer

from pluralis_lab.cli.options import AnyRunArgument, JsonOption, RunArgument
from pluralis_lab.cli.printing import find_directory, make_console, print_table, summary


def runs(as_json: JsonOption = False) -> None:
    """List the runs of this home, newest first."""
    from pluralis_lab.store import list_runs

    rows = [summary(run) for run in reversed(list_runs())]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif not rows:
        typer.echo("no runs yet; start one with: pluralis-lab launch")
    else:
        shown = [{**row, "id": str(row["id"])[:8], "rounds": f"{row['rounds']} of {row['steps']}"} for row in rows]
        print_table(shown, ("id", "state", "engine", "data", "workers", "rounds", "loss"))


def watch(run: AnyRunArgument = None) -> None:
    """Follow a run live; Ctrl-C ends the watching, not the run."""
    from pluralis_lab.terminal import watch as follow

    found = find_directory(run)
    try:
        picture = follow(found, make_console())
    except KeyboardInterrupt:
        typer.echo(f"\nstill going; watch it again:  pluralis-lab watch {found.id[:8]}")
        return
    if picture.state == "serving":
        typer.echo(f"trained; its workers serve until:  pluralis-lab stop {found.id[:8]}")
    if picture.state == "failed":
        raise typer.Exit(1)


def stop(run: RunArgument) -> None:
    """End a run's workers; what they learned stays with them."""
    import pluralis_lab as pl

    found = find_directory(run)
    pl.open_run(found.id).stop()
    typer.echo(f"stopped {found.id[:8]}; go on with:  pluralis-lab resume {found.id[:8]}")


def resume(run: RunArgument) -> None:
    """Go on with a run that was stopped or lost, from its last checkpoint."""
    import pluralis_lab as pl

    found = find_directory(run)
    handle = pl.open_run(found.id).resume(lifetime="detached")
    typer.echo(f"resumed {found.id[:8]}; watch it:  pluralis-lab watch {found.id[:8]}")
    if handle.info["engine"] == "virtual":
        typer.echo("it is a simulation, which lives as long as this command")
        handle.wait()


def delete(
    run: RunArgument, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether this is meant.")] = False
) -> None:
    """Remove a run that has ended: its events, evidence, checkpoints and logs. Its token stays on the chain."""
    import pluralis_lab as pl

    found = find_directory(run)
    if not yes:
        typer.confirm(f"remove run {found.id[:8]} with its evidence and checkpoints, for good?", abort=True)
    pl.open_run(found.id).delete()
    typer.echo(f"deleted {found.id[:8]}")
