"""`launch`, `simulate`, `plan`: a run from a spec, or its speed; `attach`, `detach`: one more worker for it, one less."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluralis_lab.cli.describing import takes_spec
from pluralis_lab.cli.following import watch
from pluralis_lab.cli.options import AccountOption, JsonOption, RunArgument
from pluralis_lab.cli.printing import find_directory, show_end

if TYPE_CHECKING:
    from pluralis_lab.spec import RunSpec

UplinkOption = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="Of what each worker sends to all others together, e.g. 80mbit; unlimited by default."),
]


@takes_spec
def launch(
    spec: "RunSpec",
    account: AccountOption = None,
    participants: Annotated[
        list[str] | None,
        typer.Option("--participant", help="An account that owns workers, dealt out in turn; may be repeated."),
    ] = None,
    chain: Annotated[str | None, typer.Option(metavar="URL", help="A JSON-RPC node; the embedded chain by default.")] = None,
    host: Annotated[str, typer.Option(help="This machine's address for workers of other machines.")] = "127.0.0.1",
    devices: Annotated[
        list[str] | None, typer.Option("--device", help="cpu, cuda:0, ...: dealt out to the workers in turn; may be repeated.")
    ] = None,
    recorded: Annotated[bool, typer.Option("--recorded", help="Write down every event, for `replay`.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Watch the run; Ctrl-C ends the watching, not the run.")] = False,
) -> None:
    """Start a run on real workers of this machine and return at once."""
    import pluralis_lab as pl

    where: dict[str, Any] = {"recorded": recorded, "host": host, **({"chain": pl.Chain(chain)} if chain else {})}
    if account is not None:
        where["account"] = account
    if participants:
        where["participants"] = participants
    if devices:
        where["devices"] = devices
    run = pl.launch(spec, lifetime="detached", **where)
    typer.echo(f"run {run.id}")
    typer.echo(f"watch it:  pluralis-lab watch {run.id[:8]}")
    typer.echo(f"stop it:   pluralis-lab stop {run.id[:8]}")
    if follow:
        watch(run.id)


@takes_spec
def simulate(
    spec: "RunSpec",
    rate: Annotated[str, typer.Option(help="Of each pair's virtual wire: 500kbit, 80mbit, 1gbit.")] = "1gbit",
    latency_ms: Annotated[float, typer.Option(help="Of the virtual wires, one way, in milliseconds.")] = 1.0,
    uplink: UplinkOption = None,
) -> None:
    """Run the same workers in one process over virtual links, until the last step."""
    import pluralis_lab as pl

    run = pl.simulate(spec, links=pl.Links(rate, latency_ms, uplink=uplink))
    typer.echo(f"run {run.id}")
    run.wait()
    show_end(find_directory(run.id))


@takes_spec
def plan(
    spec: "RunSpec",
    rate: Annotated[str, typer.Option(help="Of each pair's wire: 500kbit, 80mbit, 1gbit.")] = "1gbit",
    latency_ms: Annotated[float, typer.Option(help="Of the wires, one way, in milliseconds.")] = 1.0,
    uplink: UplinkOption = None,
    device_flops: Annotated[float, typer.Option(help="That a worker really reaches: a core 20e9, a large GPU 100e12.")] = 20e9,
    vocab: Annotated[int, typer.Option(help="Token ids of the data.")] = 256,
    as_json: JsonOption = False,
) -> None:
    """Say how fast a run would be, also of hundreds of workers that nobody here has, without training anything."""
    import dataclasses

    import pluralis_lab as pl

    planned = pl.plan(spec, links=pl.Links(rate, latency_ms, uplink=uplink), device_flops=device_flops, vocab=vocab)
    typer.echo(json.dumps(dataclasses.asdict(planned)) if as_json else str(planned))


def attach(
    run: RunArgument,
    device: Annotated[str, typer.Argument(help="cpu, or cuda:0 for the first GPU.")] = "cpu",
    stage: Annotated[int | None, typer.Option(help="Where it works; by default where there are fewest workers.")] = None,
    account: AccountOption = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="path:FILE", help="A text that it brings; every stage can read what is drawn, as token ids."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a worker on this machine to a live run; what it does belongs to the account, by default the founder's."""
    import dataclasses

    import pluralis_lab as pl

    worker = pl.open_run(find_directory(run).id).attach(device, stage=stage, account=account, data=data)
    typer.echo(json.dumps(dataclasses.asdict(worker)) if as_json else str(worker))


def detach(run: RunArgument, worker: Annotated[str, typer.Argument(help="Its name, e.g. worker-3.")]) -> None:
    """Ask a worker to leave a live run for good, when nobody needs it any more; what it did stays its participant's."""
    import pluralis_lab as pl

    pl.open_run(find_directory(run).id).detach(worker)
    typer.echo(f"{worker} leaves as soon as it has finished what it has begun")
