"""On which device each worker is put: dealt out in turn, and refused where it is not there or replicas could not agree."""

from pathlib import Path

import pytest
import torch

import pluralis_lab as pl
from pluralis_lab.errors import RunError
from pluralis_lab.gpus import Gpus
from pluralis_lab.placing import check_kinds, place

SPEC = pl.RunSpec(model=pl.GPT(n_layer=2), stages=2, replicas=2)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_without_a_word_all_are_on_the_processor() -> None:
    assert set(place(SPEC, None).values()) == {"cpu"}
    assert place(SPEC, "cpu") == place(SPEC, ["cpu"]) == place(SPEC, None)


def test_devices_are_dealt_out_in_turn(two_gpus: None) -> None:
    assert set(place(SPEC, "cuda").values()) == {"cuda:0"}
    assert place(SPEC, ("cuda:0", "cuda:1")) == {
        "worker-0": "cuda:0",
        "worker-1": "cuda:1",
        "worker-2": "cuda:0",
        "worker-3": "cuda:1",
    }
    by_stage = ["cpu", "cpu", "cuda:1", "cuda:1"]
    assert list(place(SPEC, by_stage).values()) == by_stage


@pytest.mark.parametrize(
    ("devices", "parts"),
    [
        ("gpu", ["device='gpu'", "'cuda:0'"]),
        ("cuda:2", ["device='cuda:2'", "2 CUDA devices", "'cpu'"]),
        (["cpu", "cuda:-1"], ["device='cuda:-1'"]),
        ([], ["devices=[]", "['cuda:0']"]),
        (0, ["devices=0", "'cuda:0'"]),
        ([0], ["device=0"]),
    ],
)
def test_what_is_no_device_here_is_refused(devices: object, parts: list[str], two_gpus: None) -> None:
    with pytest.raises(RunError) as caught:
        place(SPEC, devices)  # type: ignore[arg-type]
    assert all(part in str(caught.value) for part in parts), caught.value


def test_replicas_that_make_the_step_themselves_must_be_on_one_kind_of_device(two_gpus: None) -> None:
    with pytest.raises(RunError, match=r"stage 0 would have replicas on cpu and on cuda:0.*pl\.DiLoCo"):
        place(SPEC, ["cpu", "cuda:0"])
    with pytest.raises(RunError, match="stage 1 would have replicas on cuda:1 and on cpu"):
        check_kinds(SPEC, 1, ["cuda:1"], "cpu")
    mixed = place(SPEC.replace(sync=pl.DiLoCo(5)), ["cpu", "cuda:0"])
    assert list(mixed.values()) == ["cpu", "cuda:0", "cpu", "cuda:0"]


def test_a_run_that_cannot_be_placed_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="device='cuda:7'"):
        pl.launch(SPEC, devices=["cuda:7"], home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_whose_blocks_cannot_be_compiled_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    for start in (pl.launch, pl.simulate):
        with pytest.raises(pl.PluralisError, match=r"compile=True.*no-such-compiler"):
            start(SPEC.replace(compile=True), home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_blocks_for_a_gpu_are_not_compiled_without_triton(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "sh")  # stands for a compiler
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"compile=True on cuda:1: .*pip install triton.*compile=False"):
        pl.launch(SPEC.replace(compile=True, sync=pl.DiLoCo(5)), devices=["cpu", "cuda:1"], home=tmp_path)
    assert not list(tmp_path.iterdir())
    assert set(place(SPEC.replace(compile=True), "cpu").values()) == {"cpu"}
    assert set(place(SPEC, "cuda:0").values()) == {"cuda:0"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert set(place(SPEC.replace(compile=True), "cuda:0").values()) == {"cuda:0"}


def test_the_devices_of_this_machine_are_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"device": "cuda:0", "name": "A100", "memory_bytes": 80 * 2**30}
    monkeypatch.setattr(Gpus, "devices", lambda self: [gpu])
    table = pl.devices()
    assert list(table.index) == ["cpu", "cuda:0"]
    assert table.loc["cuda:0"].to_dict() == {"name": "A100", "memory_gib": 80.0}
    assert table.loc["cpu", "memory_gib"] > 0
