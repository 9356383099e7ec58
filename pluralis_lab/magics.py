"""`%pluralis`: the runs of this home from a cell, without a variable for each. Loaded by ``%load_ext pluralis_lab``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from pluralis_lab.errors import PluralisError
from pluralis_lab.listing import open_run, runs
from pluralis_lab.run import Run
from pluralis_lab.store import lab_home, list_runs

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

MAGIC = "pluralis"


@dataclass(frozen=True)
class Command:
    """One word after `%pluralis`.

    act : called with the run where `takes_run`, and with the words that follow
    more : what follows the run, as the help shows it; values : what these words can be
    """

    about: str
    act: Callable[..., Any]
    takes_run: bool = True
    more: str = ""
    values: tuple[str, ...] = ()

    def usage(self, name: str) -> str:
        """Return how the command is written."""
        return " ".join(part for part in (f"%{MAGIC}", name, "[ID]" if self.takes_run else "", self.more) if part)


@magics_class
class PluralisMagics(Magics):
    """The line magic; `%pluralis?` shows its help."""

    @line_magic(MAGIC)  # type: ignore[arg-type]  # IPython types its decorator for functions alone
    def pluralis(self, line: str) -> Any:
        """Do one thing with the runs of this home.

        ID is a run's id or its beginning; without it, the newest run. What a command returns can be kept:
        ``run = %pluralis open 3fa9``. ``%pluralis help`` lists the commands.
        """
        try:
            return _do(line)
        except PluralisError as error:
            # IPython shows this kind as one line without a traceback, and the cell still fails, as papermill must see.
            raise UsageError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def _do(line: str) -> Any:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%{MAGIC} {line}: {error}; close the quotes") from None
    name, *rest = words or ["help"]
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"%{MAGIC} {name}: no such command; there are {', '.join(COMMANDS)}")
    least, most = len(command.more.split()), len(command.more.split()) + command.takes_run
    if not least <= len(rest) <= most:
        raise UsageError(f"%{MAGIC} {line}: write {command.usage(name)}")
    if command.takes_run:
        run = open_run(rest.pop(0)) if len(rest) == most else _newest()
        return command.act(run, *rest)
    return command.act(*rest)


def _newest() -> Run:
    every = list_runs(lab_home())
    if not every:
        raise UsageError("there are no runs yet; start one with pl.launch(spec)")
    return open_run(every[-1].id)


def _help() -> None:
    width = max(len(command.usage(name)) for name, command in COMMANDS.items())
    for name, command in COMMANDS.items():
        print(f"{command.usage(name):<{width}}  {command.about}")


def _doctor() -> None:
    from pluralis_lab.doctor import run_checks

    missing = []
    for check in run_checks(lab_home()):
        print(f"{'✓' if check.ok else '✗' if check.needed else '!'} {check.name:<10} {check.detail}", flush=True)
        if check.remedy and not check.ok:
            print(f"             → {check.remedy}", flush=True)
        if check.needed and not check.ok:
            missing.append(check.name)
    if missing:
        raise UsageError(f"runs will not work on this machine yet: {', '.join(missing)}")


def _figure(run: Run, name: str) -> Any:
    return run.figure(name)


COMMANDS: dict[str, Command] = {
    "runs": Command("the runs of this home, newest first", runs, takes_run=False),
    "open": Command("the run itself", lambda run: run),
    "watch": Command("the run, live in this cell", Run.watch),
    "metrics": Command("a row a round: loss, speed", Run.metrics),
    "workers": Command("a row a worker: stage, state, device", Run.workers),
    "contributions": Command("a row a worker: what it did", Run.contributions),
    "figure": Command(
        "a figure to keep", _figure, more="NAME", values=("loss", "contributions", "alignment", "network", "ownership")
    ),
    "audit": Command("every share again, from the evidence", Run.audit),
    "stop": Command("end the run's processes", Run.stop),
    "resume": Command("go on from the last checkpoint", Run.resume),
    "doctor": Command("is this machine fit for runs?", _doctor, takes_run=False),
    "help": Command("this list", _help, takes_run=False),
}


def complete(shell: InteractiveShell, event: Any) -> list[str]:
    """Offer commands, then the ids of runs and what else the command takes."""
    words = event.line[: len(event.line) - len(event.symbol)].split()
    return [word for word in _candidates(words[1:]) if word.startswith(event.symbol)]


def _candidates(before: list[str]) -> Iterator[str]:
    if not before:
        yield from COMMANDS
        return
    command = COMMANDS.get(before[0])
    if command is None:
        return
    if command.takes_run and len(before) == 1:
        yield from (run.id[:8] for run in reversed(list_runs(lab_home())))
    if len(before) <= 1 + command.takes_run:
        yield from command.values


def load(shell: InteractiveShell) -> None:
    """Give `shell` the magic and its completion."""
    shell.register_magics(PluralisMagics)
    shell.set_hook("complete_command", complete, str_key=f"%{MAGIC}")  # type: ignore[no-untyped-call]


def unload(shell: InteractiveShell) -> None:
    """Take the magic away again."""
    shell.magics_manager.magics["line"].pop(MAGIC, None)
