"""Curves of a run without end: bounded, and no spike is ever lost."""

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.server.live.sketch import SPARSE, sketch
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.series import BoundedSeries, Series
from tests.views.made_up_run import event_rows, make_run, write_rows


@given(st.integers(0, 2**32), st.integers(100, 6_000), st.sampled_from([16, 64, 256]))
def test_a_bounded_curve_keeps_every_extreme_and_its_end(seed: int, count: int, limit: int) -> None:
    luck, whole, bounded = random.Random(seed), Series(), BoundedSeries(limit)
    for x in range(count):
        y = luck.gauss(0, 1) + (100 if luck.random() < 0.001 else 0) - (100 if luck.random() < 0.001 else 0)
        whole.put(x, y)
        assert bounded.put(x, y) is None
        assert len(bounded.x) <= limit
    assert list(bounded.x) == sorted(set(bounded.x))
    assert set(zip(bounded.x, bounded.y, strict=True)) <= set(zip(whole.x, whole.y, strict=True))
    assert (max(bounded.y), min(bounded.y)) == (max(whole.y), min(whole.y))
    assert bounded.x[0] == 0
    exact = min(count, limit // 2)
    assert list(bounded.y[-exact:]) == whole.y[-exact:]


def test_a_repeated_round_that_is_forgotten_counts_as_counted() -> None:
    series = BoundedSeries(16)
    for x in range(100):
        series.put(x, 1.0)
    assert series.put(98, 2.0) == 1.0
    assert series.put(3, 2.0) == 2.0


def test_a_bounded_picture_of_a_resumed_run_has_the_sums_of_a_whole_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=300)
    write_rows(run, event_rows(run))
    writer = run.writer()
    for event in [
        event for event in run.events(kinds=["worker.round", "round"]) if event.round is not None and event.round >= 280
    ]:
        writer.append(event.kind, event.worker, event.round, event.body)
    writer.close()
    whole, bounded = RunPicture.of(run), RunPicture.of(run, read=False, limit=64).update(run.events())
    assert bounded.total_tokens == whole.total_tokens
    assert bounded.total_work_flops == whole.total_work_flops
    assert max(len(series.x) for worker in bounded.workers.values() for series in (worker.tokens, worker.grad_norm)) <= 64
    assert bounded.to_json()["epochs"] == whole.to_json()["epochs"]


def test_the_sketch_of_more_rounds_than_it_reads_is_even(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("pluralis_lab.server.live.sketch.MAX_OF_A_KIND", 50)
    run = make_run(tmp_path, rounds=400)
    write_rows(run, event_rows(run))
    picture = sketch(run, run.reader())
    assert 50 <= len(picture.loss.x) <= 60
    assert picture.loss.x[0] == 0
    assert picture.loss.x[-1] == 399
    assert "worker.round" not in SPARSE
