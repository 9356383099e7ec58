"""`generate`, `evaluate`: what the model of a live run writes, and how well it predicts."""

import json
from typing import Annotated

import typer

from pluralis_lab.cli.options import JsonOption, RunArgument
from pluralis_lab.cli.printing import find_directory


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    tokens: Annotated[int, typer.Option(help="How many tokens to write.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; higher draws more freely.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Have a live run's workers go on with a text, stage by stage, and print it as it comes."""
    import pluralis_lab as pl

    text = pl.open_run(find_directory(run).id).generate(prompt, tokens, temperature=temperature, seed=seed)
    typer.echo(prompt, nl=False)
    for piece in text:
        typer.echo(piece, nl=False)
    typer.echo()


def evaluate(
    run: RunArgument,
    batches: Annotated[
        int | None, typer.Option(help="Held-out micro-batches; by default as many as the run's validations.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the loss of a live run's model on held-out data, as it is now."""
    import pluralis_lab as pl

    found = pl.open_run(find_directory(run).id).evaluate(batches)
    if as_json:
        typer.echo(json.dumps({"loss": found.loss, "tokens": found.tokens, "perplexity": found.perplexity}))
    else:
        typer.echo(str(found))
