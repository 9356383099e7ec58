"""The TensorBoard export, read back with TensorBoard's own reader."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up_run import PARTICIPANTS, START, event_rows, make_run, write_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pluralis_lab.errors import RunError, StoreError
from pluralis_lab.run import Run
from pluralis_lab.store import RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.tensorboard import export
from pluralis_lab.views.tensorboard_file import STATE_NAME

EVERYTHING = {"scalars": 0, "tensors": 0}


def read(folder: Path) -> Any:
    events = EventAccumulator(str(folder), size_guidance=EVERYTHING)
    events.Reload()
    return events


def curve(events: Any, tag: str) -> tuple[list[int], list[float]]:
    found = events.Scalars(tag)
    return [one.step for one in found], [one.value for one in found]


def test_the_curves_are_those_of_the_run(finished_run: RunDirectory, tmp_path: Path) -> None:
    folder = Run(finished_run).to_tensorboard(tmp_path)
    assert folder == tmp_path / finished_run.id[:12]
    events, picture = read(folder), RunPicture.of(finished_run)
    for tag, series in (
        ("loss/training", picture.loss),
        ("loss/validation", picture.validation),
        ("speed/tokens per second", picture.tokens_per_s),
        ("speed/seconds a round", picture.seconds),
        ("worker gradient norm/worker-3", picture.workers["worker-3"].grad_norm),
        ("worker agreement/worker-2", picture.workers["worker-2"].agreement),
        ("worker work/worker-0", picture.workers["worker-0"].work_flops),
    ):
        steps, values = curve(events, tag)
        assert steps == series.x, tag
        assert values == pytest.approx(series.y, rel=1e-6), tag
    owned = {name: curve(events, f"ownership/{name}") for name in PARTICIPANTS}
    assert all(steps == [24, 49, 74, 99, 124, 149, 174, 199] for steps, _ in owned.values())
    assert {name: values[-1] for name, (_, values) in owned.items()} == pytest.approx(picture.ownership(), rel=1e-5)
    assert sum(values[-1] for _, values in owned.values()) == pytest.approx(1, rel=1e-5)


def test_wall_times_are_those_of_the_events(finished_run: RunDirectory, tmp_path: Path) -> None:
    events = read(export(finished_run, tmp_path))
    rounds = finished_run.events(kinds=["round"])
    assert [one.wall_time for one in events.Scalars("loss/training")] == [one.time for one in rounds]


def test_spec_hyperparameters_and_charts_are_there(finished_run: RunDirectory, tmp_path: Path) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = read(export(finished_run, tmp_path))
    text = events.Tensors("spec")[0].tensor_proto.string_val[0].decode()
    assert '"n_layer": 6' in text
    assert finished_run.id in events.Tensors("run")[0].tensor_proto.string_val[0].decode()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["model.n_layer"].number_value == 6
    assert hparams["data"].string_value == "stdlib"
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == ["Loss", "Workers", "Owners"]


def test_calling_again_on_a_live_run_adds_only_what_is_new(tmp_path: Path) -> None:
    run = make_run(tmp_path / "home", rounds=60)
    rows = list(event_rows(run))
    middle = len(rows) // 2
    write_rows(run, iter(rows[:middle]))
    folder = export(run, tmp_path / "logs")
    (file,) = folder.glob("*tfevents*")
    first = file.read_bytes()
    live = read(folder)
    assert 0 < len(live.Scalars("loss/training")) < 60

    export(run, tmp_path / "logs")
    assert file.read_bytes() == first, "nothing was new"
    write_rows(run, iter(rows[middle:]))
    export(run, tmp_path / "logs")
    assert file.read_bytes().startswith(first)
    live.Reload()
    assert curve(live, "loss/training")[0] == list(range(60)), "a reader that was open goes on"

    whole = read(export(run, tmp_path / "at once"))
    for tag in whole.Tags()["scalars"]:
        assert live.Scalars(tag) == whole.Scalars(tag), tag


def test_a_writer_that_was_cut_off_leaves_nothing_twice(half_run: RunDirectory, tmp_path: Path) -> None:
    folder = export(half_run, tmp_path)
    (file,) = folder.glob("*tfevents*")
    whole = file.read_bytes()
    file.write_bytes(whole + whole[-100:-30])
    export(half_run, tmp_path)
    assert file.read_bytes() == whole
    (folder / STATE_NAME).unlink()
    export(half_run, tmp_path)
    assert file.read_bytes() == whole


def test_rounds_that_a_resumed_run_trained_again_replace_the_old_ones(tmp_path: Path) -> None:
    run = make_run(tmp_path / "home", rounds=60)
    write_rows(run, event_rows(run, until=10))
    folder = export(run, tmp_path / "logs")
    now = START + 1000
    again = [("run.state", None, None, {"state": "starting", "reason": ""}, now)]
    again += [("worker.round", "worker-0", 5, {"grad_norm": 9.0, "work_flops": 1.0}, now)]
    for at in range(5, 8):
        body = {"loss": 100.0 + at, "tokens": 4096, "seconds": 1.0, "tokens_per_s": 4096.0}
        again.append(("round", None, at, body, now + at))  # type: ignore[arg-type]
    write_rows(run, iter(again))  # type: ignore[arg-type]
    export(run, tmp_path / "logs")
    events = read(folder)
    steps, values = curve(events, "loss/training")
    assert steps == list(range(8))
    assert values[5:] == [105.0, 106.0, 107.0]
    assert curve(events, "worker gradient norm/worker-0")[1][-1] == 9.0


def test_a_simulation_counts_its_virtual_seconds_from_when_it_was_made(tmp_path: Path) -> None:
    run = make_run(tmp_path / "home", rounds=4)
    run.update_info(engine="virtual")
    for at in range(4):
        body = {"loss": 4.0 - at, "tokens": 64, "seconds": 0.5, "tokens_per_s": 128.0}
        write_rows(run, iter([("round", None, at, body, 0.5 * (at + 1))]))
    found = read(export(run, tmp_path / "logs")).Scalars("loss/training")
    assert [one.wall_time - START for one in found] == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_two_runs_share_a_folder_and_hostile_names_are_tags(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "../../etc/passwd", "worker-2", "a/b", "x" * 300, "\u202eevil"]
    runs = [make_run(tmp_path / "home", rounds=6, names=names, run_id=digit * 64) for digit in "ab"]
    folders = [export(write_rows(run, event_rows(run)), tmp_path / "logs") for run in runs]
    assert sorted(folders) == sorted((tmp_path / "logs").iterdir())
    for folder in folders:
        assert f"worker work/{names[0]}" in read(folder).Tags()["scalars"]
        assert {file.name for file in folder.iterdir()} == {STATE_NAME, next(folder.glob("*tfevents*")).name}


def test_a_deleted_run_a_foreign_folder_and_a_missing_library_are_told_apart(
    half_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(half_run, tmp_path / "logs")
    state = folder / STATE_NAME
    state.write_text(state.read_text().replace(half_run.id, "0" * 64))
    with pytest.raises(StoreError, match="holds the event file of run 000000000000; choose another folder"):
        export(half_run, tmp_path / "logs")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        export(half_run, tmp_path / "file")
    gone = Run(write_rows(run := make_run(tmp_path / "home"), event_rows(run, until=2)))
    gone.delete()
    with pytest.raises(RunError, match="was deleted"):
        gone.to_tensorboard(tmp_path / "logs")
    monkeypatch.setattr("pluralis_lab.views.tensorboard.find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"pip install 'pluralis-lab\[tensorboard\]'"):
        export(half_run, tmp_path / "logs")


def test_neither_torch_nor_tensorflow_is_loaded(half_run: RunDirectory, tmp_path: Path) -> None:
    code = (
        "import sys; from pluralis_lab.store import RunDirectory; from pluralis_lab.views.tensorboard import export;"
        "export(RunDirectory(sys.argv[1]), sys.argv[2]);"
        "assert not {'torch', 'tensorflow', 'hivemind'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(half_run.path), str(tmp_path)], check=True)
