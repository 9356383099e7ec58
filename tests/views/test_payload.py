"""The payload that the page and the JupyterLab renderer read."""

import json
from contextlib import closing
from pathlib import Path

from made_up_run import event_rows, make_run, write_rows

from pluralis_lab.store import Event, RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import MAX_PAYLOAD_BYTES, compact_payload, live_payload, payload_bytes


def test_the_payload_is_strict_json_and_names_its_version_and_run(finished_run: RunDirectory) -> None:
    payload = compact_payload(RunPicture.of(finished_run))
    assert json.loads(json.dumps(payload, allow_nan=False)) == payload
    assert payload["version"] == 1
    assert payload["run"] == finished_run.id
    assert payload["name"] == finished_run.id[:8]
    assert sum(part["work_share"] for part in payload["participants"]) > 0.9999


def test_the_payload_says_how_busy_each_worker_is(half_run: RunDirectory) -> None:
    workers = compact_payload(RunPicture.of(half_run))["workers"]
    assert [worker["busy"] for worker in workers] == [0.7] * 6
    assert not any(worker["idle"] for worker in workers)


def test_a_usual_run_takes_under_20_kilobytes(finished_run: RunDirectory) -> None:
    assert payload_bytes(compact_payload(RunPicture.of(finished_run))) < 20_000


def test_a_long_run_of_128_workers_still_fits(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=60, stages=8, replicas=16)
    picture = RunPicture.of(write_rows(run, event_rows(run)))
    for worker in picture.workers.values():
        for at in range(60, 1000):
            worker.grad_norm.put(at, 0.123456 + at % 7)
            worker.agreement.put(at, 0.654321 - at % 3)
    assert payload_bytes(compact_payload(picture)) <= MAX_PAYLOAD_BYTES


def test_a_thousand_reroutes_do_not_push_out_the_death_that_caused_them(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    body = {"index": 1, "stage": 1, "dead": "worker-3", "to": "worker-2"}
    first = picture.seq + 1
    picture.update(Event(first + i, 0.0, "reroute", "worker-0", 88 + i // 100, body) for i in range(1000))
    marks = compact_payload(picture)["marks"]
    assert any(mark["kind"] == "death" for mark in marks)
    assert {"kind": "reroute", "round": 90, "worker": "", "text": "100 micro-batches re-routed in round 90"} in marks


def test_long_texts_are_cut(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    picture.update(
        [Event(picture.seq + 1, 0.0, "error", "worker-1", None, {"message": "x" * 100_000, "log_tail": "y" * 100_000})]
    )
    assert payload_bytes(compact_payload(picture)) < 20_000


def test_what_is_kept_from_the_picture_before_is_what_would_be_made_afresh(finished_run: RunDirectory) -> None:
    with closing(finished_run.reader()) as reader:
        events = reader.read()
    followed = RunPicture.of(finished_run, read=False)
    for start in range(0, len(events), 97):
        followed.update(events[start : start + 97])
        fresh = RunPicture.of(finished_run, read=False).update(events[: start + 97])
        assert live_payload(followed) == live_payload(fresh)
