"""Describing a spec on the command line: a JSON file, and options that are laid over it."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluralis_lab.errors import RunSpecError

if TYPE_CHECKING:
    from pluralis_lab.spec import RunSpec


@dataclass(frozen=True)
class SpecOptions:
    """What a command that takes a spec is given for it: an argument or option for each field."""

    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="A spec as JSON; - reads it from stdin.")] = None
    data: Annotated[str | None, typer.Option(help='"stdlib", "digits", "path:FILE_OR_FOLDER" or "hf:NAME".')] = None
    stages: Annotated[int | None, typer.Option(help="Slices that the model is cut into.")] = None
    replicas: Annotated[int | None, typer.Option(help="Workers that hold the same stage.")] = None
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None
    batch_size: Annotated[int | None, typer.Option(help="Sequences per head replica and round.")] = None
    micro_batches: Annotated[int | None, typer.Option(help="Pieces that a head replica cuts its batch into.")] = None
    epoch_rounds: Annotated[int | None, typer.Option(help="Rounds of one accounting epoch.")] = None
    rank: Annotated[int | None, typer.Option(help="Rank of the subspace boundary; 0 for a dense one.")] = None
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None
    seed: Annotated[int | None, typer.Option(help="Decides weights, batches and routes.")] = None
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=JSON", help='Any field of the spec, e.g. --set \'model={"kind":"gpt"}\'.'),
    ] = None

    def build(self) -> "RunSpec":
        """Return the spec. Raises RunSpecError as `build_spec` does."""
        apart = ("spec", "rank", "lr", "fields")
        plain = {name: value for name, value in vars(self).items() if name not in apart}
        return build_spec(self.spec, plain, self.rank, self.lr, self.fields)


def takes_spec(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command`, whose first parameter is a spec, the fields of `SpecOptions` in its place on the command line."""
    of_spec = inspect.signature(SpecOptions).parameters
    _, *own = inspect.signature(command).parameters.values()

    def from_options(**given: Any) -> None:
        options = SpecOptions(**{name: given.pop(name) for name in of_spec})
        command(options.build(), **given)

    # Typer reads these three. Not by functools.wraps: Typer evaluates the annotations it copies, and RunSpec is not loaded yet.
    from_options.__name__, from_options.__doc__ = command.__name__, command.__doc__
    from_options.__signature__ = inspect.Signature([*of_spec.values(), *own])  # type: ignore[attr-defined]
    return from_options


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
