"""`invite`, `join`: workers on other people's machines."""

import json
import os
from typing import Annotated

import typer

from pluralis_lab.cli.options import JsonOption, RunArgument
from pluralis_lab.cli.printing import find_directory


def invite(
    run: RunArgument,
    seats: Annotated[int, typer.Option(help="How many workers may come with it.")] = 1,
    stage: Annotated[int | None, typer.Option(help="Where they work; by default where there are fewest workers.")] = None,
    for_hours: Annotated[float, typer.Option(help="How long it holds, in hours.")] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Print an invitation: whoever has it may bring workers into the live run with `join`."""
    import dataclasses

    import pluralis_lab as pl

    invitation = pl.open_run(find_directory(run).id).invite(seats=seats, stage=stage, for_hours=for_hours)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(invitation), "invitation": str(invitation)}))
    else:
        typer.echo(str(invitation))


def join(
    invitation: Annotated[str, typer.Argument(help="What `invite` printed; - reads it from standard input.")],
    device: Annotated[str, typer.Option(help="cpu, or cuda:0 for the first GPU.")] = "cpu",
    stage: Annotated[int | None, typer.Option(help="Where it works; by default where there are fewest workers.")] = None,
    account: Annotated[str, typer.Option(help="The account of this home that owns what it does.")] = "default",
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="HASH", help="Of the model, where it is the founder's own code or names a function: it may run here."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="This machine's address for the other workers; by default the one that leads to the run.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="path:FILE", help="A text that it brings; every stage can read what is drawn, as token ids."),
    ] = None,
    tied: Annotated[bool, typer.Option("--tied", hidden=True)] = False,
) -> None:
    """Bring a worker of this machine into another's run and stay until it ends; Ctrl-C leaves in order, twice at once."""
    from pluralis_lab.engines.swarm.forkclient import early_fork_server

    with early_fork_server() as server:  # torch takes two seconds to load: from now on, beside all else
        from pluralis_lab.accepting import confirm_on_terminal
        from pluralis_lab.joining import join_here

        # Byte by byte, because what follows on standard input is not for this.
        text = b"".join(iter(lambda: os.read(0, 1).strip(b"\n"), b"")).decode() if invitation == "-" else invitation
        why = join_here(
            text,
            device=device,
            stage=stage,
            account=account,
            accept=accept,
            confirm=confirm_on_terminal,
            host=host,
            data=data,
            tied=tied,
            server=server,
            tell=lambda line: typer.echo(line),
        )
    typer.echo(f"it is over: {why}")
