"""Workers that bring their own text: real processes, one attached here and one that joins; what is told, counted and refused."""

import json
from pathlib import Path

import pytest

import pluralis_lab as pl
from tests.engines.swarm.conftest import small_spec


@pytest.mark.drawn("who comes and goes", keep=1)
def test_own_texts_are_drawn_counted_and_stay_where_they_are(home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my notes.txt"
    mine.write_text("the quick brown fox jumps over the lazy dog. " * 4000)
    run = pl.launch(small_spec(steps=3000, epoch_rounds=20, own_data=0.5), account="lab-a")
    try:
        run.wait(round=3, timeout_s=60)
        assert run.data().empty
        attached = run.attach(data=f"path:{mine}", account="lab-b")
        assert attached.stage == 0
        joined = pl.join(run.invite(), data=f"path:{mine}", account="lab-c")
        while len(run.data()) < 2 or (run.data()["tokens"] == 0).any():
            assert run.state == "running"
            run.wait(round=len(run.metrics()) + 5, timeout_s=60)
        joined.leave()
        shown = run.data().set_index("worker")
        assert set(shown["corpus"]) == {"my notes.txt"}
        assert shown["hash"].nunique() == 1
        assert list(shown["participant"]) == ["lab-b", "lab-c"]
        assert 0 < shown["share"].sum() < 0.5
        told = json.dumps(run.info) + "".join(str(event.body) for event in run.events("enrolled"))
        assert str(tmp_path) not in told, "where the text lies was told"
        assert "my notes.txt" in told

        short = tmp_path / "short.txt"
        short.write_text("x")
        for arguments, said in (
            ({"data": f"path:{tmp_path / 'nothing.txt'}"}, "nothing.txt"),
            ({"data": f"path:{short}"}, "short"),
            ({"data": "digits"}, "holds vectors"),
            ({"data": f"path:{mine}", "stage": 1}, "only workers of stage 0 draw"),
        ):
            with pytest.raises(pl.PluralisError, match=said):
                run.attach(**arguments)
    finally:
        run.stop()
    assert run.audit().ok, str(run.audit())


@pytest.mark.deep
def test_who_has_the_text_comes_back_with_it(home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("the quick brown fox jumps over the lazy dog. " * 4000)
    run = pl.launch(small_spec(steps=3000, epoch_rounds=20, own_data=1.0), account="lab-a")
    try:
        name = run.attach(data=f"path:{mine}").name
        for deaths in range(2):
            seen = run.data()["tokens"].sum()
            while run.data()["tokens"].sum() <= seen or run.workers().set_index("worker")["deaths"][name] < deaths:
                assert run.state in ("starting", "running")
                run.wait(round=len(run.metrics()) + 5, timeout_s=60)
            run.kill(name)
    finally:
        run.stop()
    assert run.audit().ok, str(run.audit())
