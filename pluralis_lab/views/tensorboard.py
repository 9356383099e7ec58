"""`run.to_tensorboard(folder)`: a run's curves, owners and spec as an event file that TensorBoard reads.

One file a run, in a folder of the run's name, so that several runs exported to one folder can be compared. Steps are rounds.
Wall times are those of the events; a simulation's virtual seconds are counted from the moment the run was made, so that
TensorBoard's "relative" axis shows virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluralis_lab.errors import StoreError
from pluralis_lab.views.picture_parts import finite
from pluralis_lab.views.tensorboard_file import EventFile

if TYPE_CHECKING:
    from pluralis_lab.store import Event, RunDirectory

BATCH = 10_000
"""Events that are read, and made to last, at once: memory does not grow with the run."""

_CHARTS = {
    "Loss": (("training and held out, nats a token", r"^loss/.*"),),
    "Workers": (
        ("gradient norm", r"^worker gradient norm/.*"),
        ("agreement with the other replicas", r"^worker agreement/.*"),
        ("work, FLOP a round", r"^worker work/.*"),
    ),
    "Owners": (("share of all tokens given out", r"^ownership/.*"), ("share of the epoch", r"^epoch share/.*")),
}
"""The overlaid charts of TensorBoard's "custom scalars" page: (title, the curves that are in it)."""


def export(run_dir: RunDirectory, folder: str | Path) -> Path:
    """Write what is new of a run to its event file below `folder`, and return the file's folder; safe to call again and again.

    What is in the file already stays; what came since is added, which a TensorBoard that is open shows at its next reload.
    Rounds that a resumed run trained again replace the old ones there.

    Raises
    ------
    StoreError : TensorBoard's library is not installed, or the folder cannot be written
    """
    if find_spec("tensorboard") is None:
        raise StoreError("to_tensorboard needs the library tensorboard; install it with: pip install 'pluralis-lab[tensorboard]'")
    info = run_dir.info
    name = f"events.out.tfevents.{int(info['created']):010d}.pluralis"
    file = EventFile(Path(folder).expanduser() / run_dir.id[:12], name, run_dir.id)
    with file.opened(), closing(run_dir.reader()) as reader:
        if file.mark.seq > reader.last_seq():
            file.begin_again()
        curves = _Curves(run_dir, file.mark.round)
        if file.mark.seq == 0:
            for event in _beginning(run_dir):
                file.write(event)
        before = reader.read(kinds=["epoch"]) if file.mark.seq else []
        for event in before:
            if event.seq <= file.mark.seq:
                curves.owned(event)
        while batch := reader.read(since=file.mark.seq, limit=BATCH):
            for event in batch:
                for written in curves.of(event):
                    file.write(written)
            file.commit(seq=batch[-1].seq, round=curves.last_round)
    return file.path.parent


class _Curves:
    """Turns the run's events, in their order, into TensorBoard's."""

    def __init__(self, run_dir: RunDirectory, last_round: int) -> None:
        info = run_dir.info
        self.last_round = last_round
        self._start = float(info["created"]) if info.get("engine") == "virtual" else 0.0
        self._epoch_rounds = run_dir.spec.epoch_rounds
        self._names = {str(one.get("address", "")).lower(): str(one["name"]) for one in info.get("participants") or ()}
        self._owned: dict[str, int] = {}
        self._resumed = False

    def of(self, event: Event) -> Iterator[Any]:
        """Yield what `event` adds: nothing, or one event with all its values."""
        if event.kind == "run.state":
            self._resumed = self._resumed or (event.body.get("state") == "starting" and self.last_round >= 0)
        values = _VALUES.get(event.kind)
        if values is None:
            return
        step = self._step(event)
        if step is None:
            return
        wall_time = self._start + event.time
        if self._resumed and step <= self.last_round:
            # TensorBoard's own sign for "started again here": it drops the steps from this one on, which come anew.
            yield _session_start(wall_time, step)
        self._resumed = False
        found = [(tag, value) for tag, value in values(self, event) if value is not None]
        if found:
            yield _scalars(wall_time, step, found)
        self.last_round = max(self.last_round, step) if event.kind == "round" else self.last_round

    def _step(self, event: Event) -> int | None:
        if event.round is None and event.kind == "epoch":
            return (int(event.body.get("epoch") or 0) + 1) * self._epoch_rounds - 1
        return event.round

    def round(self, event: Event) -> Iterator[tuple[str, float | None]]:
        """Return the values of a whole round."""
        body = event.body
        yield "loss/training", finite(body.get("loss"))
        yield "speed/tokens per second", finite(body.get("tokens_per_s"))
        yield "speed/seconds a round", finite(body.get("seconds"))
        yield "speed/tokens a round", finite(body.get("tokens"))

    def validation(self, event: Event) -> Iterator[tuple[str, float | None]]:
        """Return a validation loss."""
        yield "loss/validation", finite(event.body.get("loss"))

    def worker(self, event: Event) -> Iterator[tuple[str, float | None]]:
        """Return what one worker did in a round."""
        for what, key in (("gradient norm", "grad_norm"), ("agreement", "agreement"), ("work", "work_flops")):
            yield f"worker {what}/{event.worker}", finite(event.body.get(key))

    def owned(self, event: Event) -> Iterator[tuple[str, float | None]]:
        """Count what an epoch gave to whom, and return each one's share of that epoch and of all so far."""
        for address, amount in (event.body.get("amounts") or {}).items():
            name = self._names.get(str(address).lower(), str(address))
            self._owned[name] = self._owned.get(name, 0) + int(amount)
        given = sum(self._owned.values())
        shares = {str(name): (int(part), int(whole)) for name, (part, whole) in (event.body.get("shares") or {}).items()}
        return iter(
            [(f"ownership/{name}", amount / given) for name, amount in self._owned.items() if given]
            + [(f"epoch share/{name}", part / whole) for name, (part, whole) in shares.items() if whole]
        )


_VALUES: dict[str, Callable[[_Curves, Event], Iterator[tuple[str, float | None]]]] = {
    "round": _Curves.round,
    "validation": _Curves.validation,
    "worker.round": _Curves.worker,
    "epoch": _Curves.owned,
}


def _beginning(run_dir: RunDirectory) -> Iterator[Any]:
    """Yield what stands at the head of the file: its version, the spec and the run as text, hyperparameters, the charts."""
    from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # type: ignore[import-untyped]
    from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]

    info, spec = run_dir.info, run_dir.spec
    made = float(info["created"])
    yield TensorBoardEvent(wall_time=made, file_version="brain.Event:2")
    facts = {
        "run": run_dir.id,
        "engine": info.get("engine"),
        "spec hash": spec.hash,
        "participants": ", ".join(str(one["name"]) for one in info.get("participants") or ()),
        "parameters": info.get("model_parameters"),
        "unigram entropy, nats a token": (info.get("corpus") or {}).get("unigram_nats"),
    }
    lines = "\n".join(f"    {name}: {value}" for name, value in facts.items())
    fields = "\n".join(f"    {line}" for line in spec.model_dump_json(indent=2).splitlines())
    for summary in (
        text_pb("run", lines),
        text_pb("spec", fields),
        hparams_pb(_flat(spec.model_dump(mode="json")), trial_id=run_dir.id, start_time_secs=made),
        _layout(),
    ):
        yield TensorBoardEvent(wall_time=made, step=0, summary=summary)


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested fields as hyperparameters: ``{"model.n_layer": 6, ...}``."""
    flat: dict[str, Any] = {}
    for name, part in value.items():
        if isinstance(part, dict):
            flat |= _flat(part, f"{above}{name}.")
        elif part is not None:
            flat[above + name] = part if isinstance(part, (bool, int, float, str)) else str(part)
    return flat


def _layout() -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata  # type: ignore[import-untyped]
    from tensorboard.util import tensor_util  # type: ignore[import-untyped]

    layout = layout_pb2.Layout()
    for title, charts in _CHARTS.items():
        category = layout.category.add(title=title)
        for name, pattern in charts:
            category.chart.add(title=name).multiline.tag.append(pattern)
    summary = Summary()
    tensor = tensor_util.make_tensor_proto(layout.SerializeToString())
    summary.value.add(tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=tensor)
    return summary


def _scalars(wall_time: float, step: int, values: list[tuple[str, float]]) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=tag, simple_value=_single(value)) for tag, value in values])
    return TensorBoardEvent(wall_time=wall_time, step=step, summary=summary)


def _single(value: float) -> float:
    """Return `value` within what a 32-bit float holds, which is what TensorBoard keeps."""
    largest = 3.4e38
    return max(-largest, min(largest, value))


def _session_start(wall_time: float, step: int) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
    from tensorboard.compat.proto.event_pb2 import SessionLog

    return TensorBoardEvent(wall_time=wall_time, step=step, session_log=SessionLog(status=SessionLog.START))
