"""The command line: `pluralis-lab launch | simulate | runs | watch | stop | resume | audit | tokenize | pay | claim | doctor`.

A thin layer over the public API. Nothing heavy is imported before a command needs it. An error that a user can act on is one red
line and exit status 1; a wrong option is status 2.
"""

import json
import os
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from pluralis_lab.errors import PluralisError, RunSpecError

if TYPE_CHECKING:
    from rich.console import Console

    from pluralis_lab.spec import RunSpec
    from pluralis_lab.store import RunDirectory

app = typer.Typer(
    help="Train one model together with others, prove the work and own the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a pretty traceback prints local variables, and one of them may be secret
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its beginning.")]
AnyRunArgument = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run's id, or its beginning; the newest by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AccountOption = Annotated[str | None, typer.Option(help="The name of an account of this home.")]
SpecArgument = Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="A spec as JSON; - reads it from stdin.")]
DataOption = Annotated[str | None, typer.Option(help='"stdlib", "digits", "path:FILE_OR_FOLDER" or "hf:NAME".')]
StagesOption = Annotated[int | None, typer.Option(help="Slices that the model is cut into.")]
ReplicasOption = Annotated[int | None, typer.Option(help="Workers that hold the same stage.")]
StepsOption = Annotated[int | None, typer.Option(help="Optimizer steps.")]
BatchOption = Annotated[int | None, typer.Option(help="Sequences per head replica and round.")]
MicroBatchesOption = Annotated[int | None, typer.Option(help="Pieces that a head replica cuts its batch into.")]
EpochOption = Annotated[int | None, typer.Option(help="Rounds of one accounting epoch.")]
RankOption = Annotated[int | None, typer.Option(help="Rank of the subspace boundary; 0 for a dense one.")]
LrOption = Annotated[float | None, typer.Option(help="Learning rate.")]
SeedOption = Annotated[int | None, typer.Option(help="Decides weights, batches and routes.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=JSON", help='Any field of the spec, e.g. --set \'model={"kind":"gpt"}\'.'),
]
ParticipantOption = Annotated[
    list[str] | None, typer.Option("--participant", help="An account that owns workers, dealt out in turn; may be repeated.")
]
ChainOption = Annotated[str | None, typer.Option(metavar="URL", help="A JSON-RPC node; the embedded chain by default.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"pluralis-lab {version('pluralis-lab')}")
        raise typer.Exit


@app.callback()
def _top(
    show_version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Train one model together with others, prove the work and own the result."""


@app.command()
def launch(
    spec: SpecArgument = None,
    data: DataOption = None,
    stages: StagesOption = None,
    replicas: ReplicasOption = None,
    steps: StepsOption = None,
    batch_size: BatchOption = None,
    micro_batches: MicroBatchesOption = None,
    epoch_rounds: EpochOption = None,
    rank: RankOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    fields: SetOption = None,
    account: AccountOption = None,
    participants: ParticipantOption = None,
    chain: ChainOption = None,
    follow: Annotated[bool, typer.Option("--watch", help="Watch the run; Ctrl-C ends the watching, not the run.")] = False,
) -> None:
    """Start a run on real workers of this machine and return at once."""
    import pluralis_lab as pl

    options = {"data": data, "stages": stages, "replicas": replicas, "steps": steps, "batch_size": batch_size, "seed": seed}
    described = build_spec(spec, {**options, "micro_batches": micro_batches, "epoch_rounds": epoch_rounds}, rank, lr, fields)
    where: dict[str, Any] = {"chain": pl.Chain(chain)} if chain else {}
    if account is not None:
        where["account"] = account
    if participants:
        where["participants"] = participants
    run = pl.launch(described, lifetime="detached", **where)
    typer.echo(f"run {run.id}")
    typer.echo(f"watch it:  pluralis-lab watch {run.id[:8]}")
    typer.echo(f"stop it:   pluralis-lab stop {run.id[:8]}")
    if follow:
        watch(run.id)


@app.command()
def simulate(
    spec: SpecArgument = None,
    data: DataOption = None,
    stages: StagesOption = None,
    replicas: ReplicasOption = None,
    steps: StepsOption = None,
    batch_size: BatchOption = None,
    micro_batches: MicroBatchesOption = None,
    epoch_rounds: EpochOption = None,
    rank: RankOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    fields: SetOption = None,
) -> None:
    """Run the same workers in one process over virtual links, until the last step."""
    import pluralis_lab as pl

    options = {"data": data, "stages": stages, "replicas": replicas, "steps": steps, "batch_size": batch_size, "seed": seed}
    described = build_spec(spec, {**options, "micro_batches": micro_batches, "epoch_rounds": epoch_rounds}, rank, lr, fields)
    run = pl.simulate(described)
    typer.echo(f"run {run.id}")
    run.wait()
    _show_end(_find(run.id))


@app.command()
def runs(as_json: JsonOption = False) -> None:
    """List the runs of this home, newest first."""
    from pluralis_lab.store import list_runs

    rows = [_summary(run) for run in reversed(list_runs())]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif not rows:
        typer.echo("no runs yet; start one with: pluralis-lab launch")
    else:
        shown = [{**row, "id": str(row["id"])[:8], "rounds": f"{row['rounds']} of {row['steps']}"} for row in rows]
        _print_table(shown, ("id", "state", "engine", "data", "workers", "rounds", "loss"))


@app.command()
def watch(run: AnyRunArgument = None) -> None:
    """Follow a run live; Ctrl-C ends the watching, not the run."""
    from pluralis_lab.terminal import watch as follow

    found = _find(run)
    try:
        picture = follow(found, _console())
    except KeyboardInterrupt:
        typer.echo(f"\nstill going; watch it again:  pluralis-lab watch {found.id[:8]}")
        return
    if picture.state == "serving":
        typer.echo(f"trained; its workers serve until:  pluralis-lab stop {found.id[:8]}")
    if picture.state == "failed":
        raise typer.Exit(1)


@app.command()
def stop(run: RunArgument) -> None:
    """End a run's workers; what they learned stays with them."""
    import pluralis_lab as pl

    found = _find(run)
    pl.open_run(found.id).stop()
    typer.echo(f"stopped {found.id[:8]}; go on with:  pluralis-lab resume {found.id[:8]}")


@app.command()
def resume(run: RunArgument) -> None:
    """Go on with a run that was stopped or lost, from its last checkpoint."""
    import pluralis_lab as pl

    found = _find(run)
    os.environ.setdefault("PLURALIS_LAB_HEADLESS", "0")  # this is no script: a detached run shall outlive the command again
    handle = pl.open_run(found.id).resume()
    typer.echo(f"resumed {found.id[:8]}; watch it:  pluralis-lab watch {found.id[:8]}")
    if handle.info["lifetime"] == "kernel":
        typer.echo('it was started with lifetime="kernel", so it lives as long as this command')
        handle.wait()


@app.command()
def audit(run: AnyRunArgument = None, as_json: JsonOption = False) -> None:
    """Compute every share again from the public evidence; status 1 if anything does not hold."""
    import dataclasses

    import pluralis_lab as pl

    found = _find(run)
    report = pl.open_run(found.id).audit()
    if as_json:
        findings = [
            dataclasses.asdict(finding) if dataclasses.is_dataclass(finding) and not isinstance(finding, type) else str(finding)
            for finding in report.findings
        ]
        typer.echo(json.dumps({"run": found.id, "ok": report.ok, "findings": findings}, indent=1, default=str))
    else:
        for finding in report.findings:
            typer.echo(str(finding))
        typer.echo(f"audit of {found.id[:8]}: {'everything holds' if report.ok else 'does NOT hold'}")
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def tokenize(run: RunArgument, account: AccountOption = None) -> None:
    """Put a run's closed epochs on its chain and show who owns what."""
    import pluralis_lab as pl

    found = _find(run)
    token = pl.open_run(found.id).tokenize(**({"account": account} if account else {}))
    typer.echo(f"token {token.address}  ledger {token.ledger}")
    _print_frame(token.shares())


@app.command()
def pay(
    run: RunArgument,
    ether: Annotated[str, typer.Option(help="Ether to pay to the owners, e.g. 0.5.")],
    account: AccountOption = None,
) -> None:
    """Pay revenue to the owners of a run."""
    try:
        amount = Decimal(ether)
    except InvalidOperation:
        raise typer.BadParameter(f"{ether!r} is not a number", param_hint="--ether") from None
    if not amount.is_finite() or amount <= 0:
        raise typer.BadParameter(f"{ether} is not a positive amount", param_hint="--ether")
    token = _token(run)
    token.pay(ether=amount, **({"account": account} if account else {}))
    typer.echo(f"paid {amount} ether to the owners of {_find(run).id[:8]}")
    _print_frame(token.shares())


@app.command()
def claim(run: RunArgument, account: AccountOption = None) -> None:
    """Claim revenue: for one account, or for every account of this home."""
    _print_frame(_token(run).claim(**({"account": account} if account else {})))


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this machine and say what to do about each failure; status 1 if something that runs need is missing."""
    import dataclasses

    from pluralis_lab.doctor import run_checks
    from pluralis_lab.store import lab_home

    console, failed, rows = _console(), 0, []
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


def build_spec(
    file: Path | None, options: dict[str, Any], rank: int | None, lr: float | None, fields: list[str] | None
) -> "RunSpec":
    """Return the spec of a JSON file with options laid over it, checked as a whole.

    Raises RunSpecError for a file that cannot be read, a field that is not JSON, and everything that RunSpec refuses.
    """
    from pluralis_lab.spec import RunSpec

    described: dict[str, Any] = {}
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text()
        except OSError as error:
            raise RunSpecError(f"the spec {file} cannot be read ({error.strerror}); write one with spec.to_json()") from None
        RunSpec.from_json(text)  # names what is wrong in the file itself, before options are laid over it
        described = json.loads(text)
    described.update({name: value for name, value in options.items() if value is not None})
    if rank is not None:
        described["boundary"] = {"kind": "subspace", "rank": rank} if rank else {"kind": "dense"}
    if lr is not None:
        described["optimizer"] = {**described.get("optimizer", {"kind": "adamw"}), "lr": lr}
    for field in fields or []:
        name, equals, value = field.partition("=")
        if not equals:
            raise RunSpecError(f"--set {field!r} has no value; write FIELD=JSON")
        try:
            described[name] = json.loads(value)
        except ValueError:
            raise RunSpecError(
                f"--set {field!r}: what follows {name}= is not JSON; quote texts, e.g. data='\"stdlib\"'"
            ) from None
    return RunSpec(**described)


def _find(prefix: str | None) -> "RunDirectory":
    from pluralis_lab.errors import RunError
    from pluralis_lab.store import find_run, list_runs

    if prefix is not None:
        return find_run(prefix)
    every = list_runs()
    if not every:
        raise RunError("there are no runs yet; start one with: pluralis-lab launch")
    return every[-1]


def _token(run: str) -> Any:
    import pluralis_lab as pl

    found = _find(run)
    return pl.open_run(found.id).token


def _summary(run: "RunDirectory") -> dict[str, Any]:
    from pluralis_lab.engines import processes

    processes.is_running(run)  # writes down the end of a supervisor that was killed
    info, last = run.info, run.last("round")
    return {
        "id": run.id,
        "state": info["state"],
        "engine": info.get("engine"),
        "data": run.spec.data,
        "workers": len(info.get("workers") or ()),
        "rounds": 0 if last is None or last.round is None else last.round + 1,
        "steps": run.spec.steps,
        "loss": None if last is None else last.body.get("loss"),
        "created": info.get("created"),
    }


def _show_end(run: "RunDirectory") -> None:
    row = _summary(run)
    loss = "" if row["loss"] is None else f", loss {row['loss']:.3f} nats"
    typer.echo(f"{row['state']} after {row['rounds']} of {row['steps']} rounds{loss}")


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _print_frame(frame: Any) -> None:
    rows = frame.reset_index(drop=True).to_dict("records")
    _print_table(rows, tuple(column for column in frame.columns if not column.endswith("_wei")))


def _print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers: tuple[Literal["left"], Literal["right"]] = ("left", "right")
    for column in columns:
        is_number = any(isinstance(row.get(column), int | float | Decimal) for row in rows)
        table.add_column(column, justify=numbers[is_number], overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    _console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fail(error: PluralisError) -> NoReturn:
    from rich.console import Console

    message = " ".join(str(error).split())
    Console(stderr=True).print(f"{type(error).__name__}: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the console script `pluralis-lab` enters here."""
    try:
        app(args=arguments, prog_name="pluralis-lab")
    except PluralisError as error:
        _fail(error)


if __name__ == "__main__":
    main()
