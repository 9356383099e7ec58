"""Arguments and options that several commands share."""

from typing import Annotated

import typer

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its beginning.")]
AnyRunArgument = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run's id, or its beginning; the newest by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AccountOption = Annotated[str | None, typer.Option(help="The name of an account of this home.")]
