"""What is shown of runs: rows, facts, events, logs, receipts, and what is said of damaged ones."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pluralis_lab.server.lab import Lab
from pluralis_lab.server.rows import Rows
from pluralis_lab.server.settings import Settings
from pluralis_lab.store import Event, EventReader, RunDirectory
from pluralis_lab.views.fold import RunPicture
from tests.server.asking import RUN, Api
from tests.views.made_up_run import event_rows, make_run, write_rows

GIB = 2**30

HOSTILE = '<img src=x onerror="alert(1)"></script><script>\u2028\u2029\x00\x1b[31m\U0001f480'


async def test_a_row_has_the_newest_figures(api: Api, finished: RunDirectory) -> None:
    (row,) = (await api.get("runs"))[1]["runs"]
    last = finished.last("round")
    assert last is not None
    assert (row["id"], row["state"], row["rounds_done"], row["steps"]) == (RUN, "stopped", 60, 60)
    assert row["loss"] == last.body["loss"]
    assert row["participants"] == ["lab-a", "lab-b", "lab-c"]


async def test_a_row_follows_the_run_and_a_removed_run_leaves(api: Api, going: RunDirectory, root: Path) -> None:
    assert (await api.get("runs"))[1]["runs"][0]["rounds_done"] == 20
    writer = going.writer()
    writer.append("round", round=20, body={"loss": 1.5, "tokens": 1, "seconds": 1, "tokens_per_s": 1})
    writer.close()
    (row,) = (await api.get("runs"))[1]["runs"]
    assert (row["rounds_done"], row["loss"]) == (21, 1.5)
    going.path.rename(root / "elsewhere")
    assert (await api.get("runs"))[1] == {"runs": []}


def late(worker: str, round_: int, delay: float, *, compute_s: float = 0.4, bytes_out: int = 0) -> dict[str, Any]:
    body = {"tokens": 512, "work_flops": 1.0, "compute_s": compute_s, "delay": delay, "bytes_out": bytes_out}
    return {"kind": "worker.round", "worker": worker, "round": round_, "body": body, "time": 2e9 + round_}


async def test_a_row_tells_how_the_workers_of_a_live_run_do(api: Api, going: RunDirectory, lab: Lab) -> None:
    (row,) = (await api.get("runs"))[1]["runs"]
    assert (row["phases"], row["live_workers"], row["idle_workers"], row["stage_delay"]) == ({"active": 6}, 6, 0, None)
    picture = RunPicture.of(going)
    assert row["bytes_per_s"] == pytest.approx(picture.bytes_per_s)
    assert row["bytes_per_s"] > 1e6
    writer = going.writer()
    for round_ in range(20, 42):
        for number in range(6):
            idle = number == 4
            writer.append(
                **late(f"worker-{number}", round_, (5, 6, 3, 3, 0, 0)[number], compute_s=0.01 if idle else 0.4, bytes_out=500)
            )
    writer.append("worker.state", "worker-5", 41, {"state": "syncing", "received_bytes": 1, "size_bytes": 2}, time=2e9 + 42)
    writer.append("worker.state", "worker-1", 41, {"state": "dead"}, time=2e9 + 42)
    writer.close()
    lab.rows.keep_only(set())  # how workers do is not read again at once
    (row,) = (await api.get("runs"))[1]["runs"]
    assert row["phases"] == {"active": 4, "syncing": 1, "dead": 1}
    assert (row["live_workers"], row["idle_workers"]) == (4, 1)
    assert row["bytes_per_s"] == pytest.approx(4 * 500.0)
    assert row["stage_delay"] == 5.5
    going.update_info(state="stopped")
    (row,) = (await api.get("runs"))[1]["runs"]
    assert (row["phases"], row["live_workers"], row["idle_workers"], row["bytes_per_s"]) == ({}, None, None, None)


async def test_how_workers_do_is_read_again_only_after_a_rest(
    api: Api, going: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pluralis_lab.server.rows.REST", 10**9)
    assert (await api.get("runs"))[1]["runs"][0]["phases"] == {"active": 6}
    writer = going.writer()
    writer.append("worker.state", "worker-1", 20, {"state": "dead"})
    writer.append("round", round=20, body={"loss": 1.5, "tokens": 1, "seconds": 1, "tokens_per_s": 1})
    writer.close()
    (row,) = (await api.get("runs"))[1]["runs"]
    assert (row["loss"], row["phases"]) == (1.5, {"active": 6})
    going.update_info(state="stopped")  # of an ended run nothing old is said
    assert (await api.get("runs"))[1]["runs"][0]["phases"] == {}


def test_what_a_row_reads_does_not_grow_with_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    newest = EventReader.newest

    def counted(reader: EventReader, kind: str, limit: int) -> list[Event]:
        events = newest(reader, kind, limit)
        asked.append(len(events) if kind == "worker.round" else 0)
        return events

    monkeypatch.setattr(EventReader, "newest", counted)
    run = make_run(root, rounds=400, stages=3, replicas=2)
    write_rows(run, event_rows(run, until=300))
    run.update_info(state="running")
    row = Rows(Settings((root,), read_only=True)).row(run)
    assert (max(asked), row["idle_workers"]) == (21 * 6, 0)
    many = make_run(root, rounds=400, stages=12, replicas=15, run_id="ab" * 32)
    write_rows(many, event_rows(many, until=8))
    many.update_info(state="running")
    asked.clear()
    row = Rows(Settings((root,), read_only=True)).row(many)
    assert (max(asked), row["live_workers"], row["idle_workers"]) == (5 * 180, 180, None)


async def test_facts_hold_the_spec_and_the_disk_use(api: Api, finished: RunDirectory) -> None:
    (finished.worker_folder("worker-0") / "checkpoint-1.safetensors").write_bytes(b"x" * 10_000)
    facts = (await api.get(f"runs/{RUN}"))[1]
    assert facts["spec"] == finished.spec.model_dump(mode="json")
    disk = facts["disk"]
    assert disk["checkpoints"] >= 10_000
    assert disk["events"] > 0
    assert disk["total"] >= disk["events"] + disk["evidence"] + disk["checkpoints"] + disk["logs"]


async def test_events_come_in_pages(api: Api, finished: RunDirectory) -> None:
    page = (await api.get(f"runs/{RUN}/events", since=0, limit=7))[1]
    assert [event["seq"] for event in page["events"]] == list(range(1, 8))
    following = (await api.get(f"runs/{RUN}/events", since=page["next"], limit=2))[1]
    assert [event["seq"] for event in following["events"]] == [8, 9]
    some = (await api.get(f"runs/{RUN}/events", kinds="epoch,validation"))[1]["events"]
    assert {event["kind"] for event in some} == {"epoch", "validation"}
    end = (await api.get(f"runs/{RUN}/events", since=10**9))[1]
    assert end == {"events": [], "next": 10**9}


@pytest.mark.parametrize("lab_options", [{"max_events": 5}])
async def test_no_page_is_larger_than_the_limit(api: Api, finished: RunDirectory) -> None:
    assert len((await api.get(f"runs/{RUN}/events", limit=1_000))[1]["events"]) == 5


async def test_hostile_text_is_passed_on_as_text(api: Api, going: RunDirectory) -> None:
    writer = going.writer()
    writer.append("error", HOSTILE, None, {"message": HOSTILE, "log_tail": HOSTILE})
    writer.append("worker.state", HOSTILE, 3, {"state": HOSTILE, "stage": 0, "replica": 0, "participant": HOSTILE})
    writer.close()
    (going.path / "logs" / "worker-0.log").write_bytes(HOSTILE.encode() + b"\xff\xfe\n")
    events = (await api.get(f"runs/{RUN}/events", kinds="error"))[1]["events"]
    assert events[-1]["body"]["message"] == HOSTILE
    assert events[-1]["worker"] == HOSTILE
    picture = (await api.get(f"runs/{RUN}/picture"))[1]["picture"]
    assert picture["errors"][-1]["message"] == HOSTILE
    assert any(worker["name"] == HOSTILE for worker in picture["workers"])
    response = await api.plain(f"runs/{RUN}/events?kinds=error", headers={"Authorization": f"token {api.token}"})
    assert response.headers["Content-Type"].startswith("application/json")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.body.isascii()
    assert HOSTILE[:10] in (await api.get(f"runs/{RUN}/log/worker-0"))[1]["text"]


async def test_an_event_that_makes_no_sense_is_named_and_left_out(api: Api, going: RunDirectory) -> None:
    writer = going.writer()
    bad = writer.append("worker.state", "worker-0", 3, {"state": "active", "stage": "zero"})
    writer.append("round", round=21, body={"loss": 1.25, "tokens": 1, "seconds": 1, "tokens_per_s": 1})
    writer.close()
    reply = (await api.get(f"runs/{RUN}/picture"))[1]
    assert f"event {bad}" in reply["problem"]
    assert reply["picture"]["loss"]["y"][-1] == 1.25


@pytest.mark.parametrize("broken", ["run.json", "spec.json", "events.db"])
async def test_a_damaged_run_says_so_and_hides_no_other(api: Api, root: Path, finished: RunDirectory, broken: str) -> None:
    other = make_run(root, run_id="ab" * 32)
    (finished.path / broken).write_bytes(b"{ this is neither JSON nor a database" * 100)
    for beside in ("events.db-wal", "events.db-shm"):
        (finished.path / beside).unlink(missing_ok=True)
    rows = {row["id"]: row for row in (await api.get("runs"))[1]["runs"]}
    assert rows[RUN]["state"] == "damaged"
    assert rows[RUN]["reason"]
    assert rows[other.id]["state"] == "starting"
    status, reply = await api.get(f"runs/{RUN}")
    assert (status, reply["reason"]) == (409, "damaged")
    status, reply = await api.get(f"runs/{RUN}/picture")
    assert status == 409 or reply["problem"]


async def test_receipts_are_listed_newest_first_and_in_pages(api: Api, finished: RunDirectory) -> None:
    def line(epoch: int, round_: int, worker: str, signer: str) -> dict[str, Any]:
        items = [{"indices": [0, 1], "tokens": 512, "digest": "ab" * 32, "signature": "0x"}]
        body = {"type": "statement", "kind": "forward", "run": RUN, "epoch": epoch, "round": round_, "stage": 0, "worker": worker}
        return {"body": {**body, "signer": signer, "items": items, "norm": None, "agreement": None}, "signature": "0x"}

    for epoch in range(3):
        lines = [line(epoch, 10 * epoch + i, worker, "worker-2") for i in range(4) for worker in ("worker-1", "worker-10")]
        finished.evidence.append_statements(epoch, lines)
    bad = '{"body":{"worker":"worker-1","kind":"made up"}}\nno JSON "worker":"worker-1"\n{"half a line "worker":"worker-1"'
    last = finished.path / "evidence" / "epoch-2.jsonl"
    last.write_text(last.read_text() + bad)
    first = (await api.get(f"runs/{RUN}/receipts", worker="worker-1", limit=5))[1]
    assert [(r["epoch"], r["round"]) for r in first["receipts"]] == [(2, 23), (2, 22), (2, 21), (2, 20), (1, 13)]
    assert {(r["worker"], r["micro_batches"], r["tokens"]) for r in first["receipts"]} == {("worker-1", 2, 512)}
    assert first["receipts"][0]["signer_participant"] == "lab-c"
    following = (await api.get(f"runs/{RUN}/receipts", worker="worker-1", limit=5, before=2))[1]
    assert [r["round"] for r in following["receipts"]] == [13, 12, 11, 10, 3]
    rest = (await api.get(f"runs/{RUN}/receipts", worker="worker-1", before=2, offset=5))[1]
    assert [r["round"] for r in rest["receipts"]] == [2, 1, 0]
    assert (await api.get(f"runs/{RUN}/receipts", worker="worker-7"))[1] == {"receipts": [], "total": 0}


async def test_a_log_is_cut_from_its_end(api: Api, finished: RunDirectory) -> None:
    (finished.path / "logs" / "supervisor.log").write_text("".join(f"line {i}\n" for i in range(100_000)))
    text = (await api.get(f"runs/{RUN}/log/supervisor", lines=3))[1]["text"]
    assert text == "line 99997\nline 99998\nline 99999"


class NvmlError(Exception):
    """What NVIDIA's library raises."""


def nvml() -> Any:
    """Return as much of NVIDIA's library as is asked of it, on a machine with two GPUs."""
    gpus = (("NVIDIA H100", "GPU-a", 80 * GIB), ("NVIDIA T4", "GPU-b", 16 * GIB))

    def by_index(index: int) -> Any:
        if index >= len(gpus):
            raise NvmlError
        return gpus[index]

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=by_index,
        nvmlDeviceGetHandleByUUID=lambda name: next(gpu for gpu in gpus if gpu[1] == name),
        nvmlDeviceGetName=lambda gpu: gpu[0],
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(total=gpu[2]),
    )


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA H100", "NVIDIA T4"]),
        ("1", ["NVIDIA T4"]),
        ("GPU-b, 0", ["NVIDIA T4", "NVIDIA H100"]),
        ("0,7,1", ["NVIDIA H100"]),
        ("", []),
    ],
)
async def test_the_devices_are_those_that_a_worker_would_see(
    api: Api, lab: Lab, monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    monkeypatch.setattr(lab.hub.gpus, "_nvml", nvml())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cpu, *gpus = (await api.get("devices"))[1]["devices"]
    assert cpu == {"device": "cpu", "name": "", "memory_bytes": None}
    assert [gpu["name"] for gpu in gpus] == names
    assert [gpu["device"] for gpu in gpus] == [f"cuda:{number}" for number in range(len(names))]
    assert all(gpu["memory_bytes"] in (16 * GIB, 80 * GIB) for gpu in gpus)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"engine": "virtual", "state": "running"}, "is a simulation, which has no processes"),
        ({"state": "serving"}, "has trained all its rounds"),
        ({"state": "paused"}, "is paused and goes back to its last checkpoint; add the worker when it is on again"),
        ({"state": "stopped"}, "is not running (state stopped); resume it, then add a worker"),
        ({"state": "running", "chain": {"kind": "url"}}, "needs a passphrase, which no server asks for; attach from a notebook"),
    ],
)
async def test_a_run_that_takes_no_worker_says_why_and_no_process_is_started(
    api: Api, lab: Lab, going: RunDirectory, facts: dict[str, Any], says: str
) -> None:
    going.update_info(**facts)
    status, reply = await api.post(f"runs/{RUN}/attach", {})
    assert (status, says in reply["message"]) == (409, True), reply
    assert b'children_started_total{op="attach"}' not in lab.meters.text([])


async def test_metrics_count_runs_and_what_was_done(api: Api, finished: RunDirectory) -> None:
    await api.get(f"runs/{RUN}/picture")
    status, text = await api.get("metrics")
    assert status == 200
    assert 'pluralis_lab_runs{state="stopped"} 1.0' in text
    assert f"pluralis_lab_events_folded_total {float(finished.last_seq())}" in text
