"""The command line, `pluralis-lab launch | simulate | plan | attach | runs | watch | stop | resume | delete | ... | doctor`.

A thin layer over the public API. Nothing heavy is imported before a command needs it. An error that a user can act on is one red
line and exit status 1; a wrong option is status 2.
"""

from typing import Annotated

import typer

from pluralis_lab.cli.asking import evaluate, generate
from pluralis_lab.cli.checking import doctor, replay
from pluralis_lab.cli.describing import build_spec
from pluralis_lab.cli.following import delete, resume, runs, stop, watch
from pluralis_lab.cli.joining import invite, join
from pluralis_lab.cli.owning import audit, claim, pay, tokenize
from pluralis_lab.cli.printing import fail
from pluralis_lab.cli.starting import attach, detach, launch, plan, simulate
from pluralis_lab.errors import PluralisError

__all__ = ["app", "build_spec", "main"]

app = typer.Typer(
    help="Train one model together with others, prove the work and own the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a pretty traceback prints local variables, and one of them may be secret
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    launch,
    simulate,
    plan,
    attach,
    detach,
    invite,
    join,
    runs,
    watch,
    stop,
    resume,
    delete,
    generate,
    evaluate,
    audit,
    replay,
    tokenize,
    pay,
    claim,
    doctor,
):
    app.command()(command)


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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the console script `pluralis-lab` enters here."""
    try:
        app(args=arguments, prog_name="pluralis-lab")
    except PluralisError as error:
        fail(error)
