"""A run in the terminal: a live view with rich, drawn from the run directory alone."""

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pluralis_lab.engines import processes
from pluralis_lab.store import RunDirectory
from pluralis_lab.views.fold import RunPicture

REFRESH_S = 0.5
STATE_STYLES = {
    "active": "green",
    "serving": "green",
    "running": "green",
    "paused": "yellow",
    "aside": "yellow",
    "dead": "bold red",
    "failed": "bold red",
}
_BARS = "▁▂▃▄▅▆▇█"


def watch(run: RunDirectory, console: Console, *, sleep: Callable[[float], None] = time.sleep) -> RunPicture:
    """Show `run` until its last round is trained or it ends, and return its last picture.

    On a terminal the view is redrawn twice a second; elsewhere (a pipe, a log) one line is printed for each validation
    loss and each change of a state. Reads the store only, so that any number may watch.
    """
    reader, picture = run.reader(), RunPicture.of(run, read=False)
    live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
    try:
        if live is not None:
            live.start()
        while True:
            events = reader.read(since=picture.seq)
            picture.update(events)
            if live is not None:
                live.update(render(picture), refresh=True)
            else:
                for event in events:
                    line = describe(event.kind, event.worker, event.round, event.body)
                    if line:
                        console.print(line, highlight=False, markup=False)
            if picture.is_over or (picture.is_complete and picture.state == "serving"):
                return picture
            if not events:
                processes.is_running(
                    run
                )  # a supervisor that was killed cannot say so: this writes it down, and the next reading has it
            sleep(REFRESH_S)
    finally:
        if live is not None:
            live.stop()


def describe(kind: str, worker: str | None, round: int | None, body: dict[str, object]) -> str | None:
    """Return one line for an event that a log should have, None for the rest."""
    if kind == "run.state":
        return f"run {body['state']}" + (f": {body['reason']}" if body.get("reason") else "")
    if kind == "worker.state" and body.get("state") in ("active", "dead", "aside", "stopped"):
        return f"{worker} {body['state']}" + (f": {body['reason']}" if body.get("reason") else "")
    if kind == "validation":
        return f"round {round}: validation loss {body['loss']:.3f} nats"
    if kind == "error":
        return f"error in {worker or 'the run'}: {body.get('message')}"
    return None


def render(picture: RunPicture) -> RenderableType:
    """Return the view of one moment: a headline, the loss, and a line for each worker."""
    style = STATE_STYLES.get(picture.state, "")
    head = Text.assemble(
        (f"{picture.name}  ", "bold"), (picture.headline, style), f"  round {picture.rounds_done} of {picture.steps}"
    )
    if picture.remaining_s is not None:
        head.append(f"  about {picture.remaining_s:.0f} s to go", "dim")
    return Group(head, _loss_line(picture), _workers(picture), *_errors(picture))


def sparkline(values: list[float], width: int = 40) -> str:
    """Return `values`, thinned to `width` columns, as bars between their least and greatest."""
    if not values:
        return ""
    picked = values if len(values) <= width else [values[index * (len(values) - 1) // (width - 1)] for index in range(width)]
    low, high = min(picked), max(picked)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in picked)


def _loss_line(picture: RunPicture) -> Text:
    line = Text()
    if picture.loss.last is not None:
        line.append(f"loss {picture.loss.last:.3f} nats ")
        line.append(sparkline(picture.loss.y), "cyan")
    if picture.validation.last is not None:
        line.append(f"  validation {picture.validation.last:.3f}")
    if picture.unigram_nats is not None:
        line.append(f"  unigram {picture.unigram_nats:.3f}", "dim")
    if picture.tokens_per_s.last is not None:
        line.append(f"  {picture.tokens_per_s.last:,.0f} tokens/s")
    return line


def _workers(picture: RunPicture) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", justify="right")
    for title in ("worker", "owner", "state"):
        table.add_column(title)
    for title in ("work", "gradient norm", "agreement", "out kB/s"):
        table.add_column(title, justify="right")
    total = picture.total_work_flops
    for stage, workers in picture.grouped():
        for worker in workers:
            table.add_row(
                str(stage),
                worker.name,
                worker.participant,
                Text(worker.state, STATE_STYLES.get(worker.state, "yellow")),
                f"{100 * worker.total_work_flops / total:.1f} %" if total else "",
                _number(worker.grad_norm.last, 2),
                _number(worker.agreement.last, 2),
                _number(None if worker.bytes_per_s is None else worker.bytes_per_s / 1000, 0),
            )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _errors(picture: RunPicture) -> list[Text]:
    return [Text(f"{error.get('worker') or 'run'}: {error.get('message')}", "red") for error in picture.errors[-3:]]
