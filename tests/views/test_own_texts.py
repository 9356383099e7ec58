"""Who brought which text, and how much was drawn of it, in the table, the picture that is sent, and the bounded one."""

from pathlib import Path
from typing import Any

import pytest
from made_up_run import START, make_run

from pluralis_lab.store import RunDirectory
from pluralis_lab.views import frames
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import live_payload

TEXT = {"name": "notes.txt", "hash": "ab" * 32, "train_tokens": 5_000}


def counted(run: RunDirectory, rounds: list[tuple[str, int, int, dict[str, Any]]]) -> None:
    """Append what workers of stage 1 counted: (worker, round, tokens in all, links)."""
    writer = run.writer()
    try:
        for worker, round_, tokens, links in rounds:
            body = {"tokens": tokens, "work_flops": 1.0, "bytes_out": 0, "bytes_in": 0, "links": links}
            writer.append("worker.round", worker, round_, body, time=START + round_)
    finally:
        writer.close()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Two stages of two; `worker-4` and `worker-5` came to stage 0, the first with a text."""
    run = make_run(tmp_path, stages=2, own_data=0.5, rounds=40)
    writer = run.writer()
    try:
        for name, more in (("worker-4", {"data": TEXT}), ("worker-5", {})):
            seat = {"stage": 0, "replica": int(name[-1]) - 2, "participant": "lab-b", "device": "cpu", "address": "0x" + "b" * 40}
            writer.append("enrolled", name, None, seat | more, time=START)
    finally:
        writer.close()
    counted(
        run,
        [
            ("worker-2", 0, 300, {"worker-4": {"bytes": 9, "own_tokens": 100}, "worker-0": {"bytes": 9}}),
            ("worker-3", 0, 100, {"worker-4": {"own_tokens": 50}}),
            ("worker-0", 0, 400, {"worker-4": {"own_tokens": 9_999}}),
            ("worker-2", 1, 200, {"worker-4": {"own_tokens": 60}}),
        ],
    )
    return run


def test_what_stage_1_counted_is_told_of_whoever_brought_a_text(run: RunDirectory) -> None:
    (row,) = frames.data(run).to_dict("records")
    told = {"worker": "worker-4", "participant": "lab-b", "corpus": "notes.txt", "hash": "ab" * 32, "size": 5_000}
    assert row == {**told, "tokens": 210, "share": 0.35}
    own = frames.contributions(run).set_index("worker")["own_tokens"]
    assert own["worker-4"] == own.sum() == 210
    for picture in (RunPicture.of(run), RunPicture.of(run, limit=240)):
        assert live_payload(picture)["own_texts"] == [row]


def test_a_round_that_is_repeated_counts_once(run: RunDirectory) -> None:
    # Back at a checkpoint: round 1 is trained again, and this time nothing is drawn from the text.
    counted(run, [("worker-2", 1, 200, {"worker-0": {"bytes": 9}}), ("worker-2", 0, 300, {"worker-4": {"own_tokens": 80}})])
    for picture in (RunPicture.of(run), RunPicture.of(run, limit=240)):
        (text,) = live_payload(picture)["own_texts"]
        assert (text["tokens"], text["share"]) == (130, pytest.approx(130 / 600, rel=1e-4))


def test_a_run_whose_workers_bring_nothing_tells_of_nothing(finished_run: RunDirectory) -> None:
    assert frames.data(finished_run).empty
    assert list(frames.data(finished_run)) == ["worker", "participant", "corpus", "hash", "size", "tokens", "share"]
    assert live_payload(RunPicture.of(finished_run))["own_texts"] == []


def test_links_that_are_none_do_not_end_a_picture_that_is_followed(run: RunDirectory) -> None:
    counted(run, [("worker-2", 2, 300, {"worker-4": 7}), ("worker-3", 2, 0, [7])])  # type: ignore[list-item]
    (text,) = live_payload(RunPicture.of(run, limit=240))["own_texts"]
    assert text["tokens"] == 210
