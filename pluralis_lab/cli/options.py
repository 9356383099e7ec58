"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
