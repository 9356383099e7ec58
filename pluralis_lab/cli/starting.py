"""`launch` and `simulate`: a spec from a file and options, and a run from the spec."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluralis_lab.cli.following import watch
from pluralis_lab.cli.options import (
    AccountOption,
    BatchOption,
    ChainOption,
    DataOption,
    EpochOption,
    LrOption,
    MicroBatchesOption,
    ParticipantOption,
    RankOption,
    ReplicasOption,
    SeedOption,
    SetOption,
    SpecArgument,
    StagesOption,
    StepsOption,
)
from pluralis_lab.cli.printing import find_directory, show_end
from pluralis_lab.errors import RunSpecError

if TYPE_CHECKING:
    from pluralis_lab.spec import RunSpec


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
    show_end(find_directory(run.id))


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
