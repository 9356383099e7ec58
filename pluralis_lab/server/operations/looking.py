"""Looking at runs: the server, the list, one run, its picture, its events, its logs, its receipts."""

import json
import os
import platform
import re
import stat
from pathlib import Path
from typing import Any, cast

from pluralis_lab import __version__
from pluralis_lab.server.metering import CONTENT_TYPE
from pluralis_lab.server.openapi import PATHS
from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.route import Call, Text
from pluralis_lab.server.shapes.evidence import ReceiptPage
from pluralis_lab.server.shapes.picture import PictureReply
from pluralis_lab.server.shapes.runs import (
    Device,
    DeviceList,
    DiskUse,
    EventPage,
    LogTail,
    RunEvent,
    RunFacts,
    RunList,
    ServerStatus,
)
from pluralis_lab.store import EventReader

BYTES_A_LINE = 400


def status(call: Call) -> ServerStatus:
    """What this server is and allows."""
    settings = call.lab.settings
    return {
        "version": __version__,
        "read_only": settings.read_only,
        "allowed_chains": list(settings.allowed_chains),
        "python": settings.interpreter if settings.interpreter else platform.python_version(),
        "num_roots": len(settings.roots),
        "max_live_runs": settings.max_live_runs,
    }


def list_devices(call: Call) -> DeviceList:
    """What a worker that is added here can run on."""
    cpu: Device = {"device": "cpu", "name": "", "memory_bytes": None}
    return {"devices": [cpu, *(cast(Device, gpu) for gpu in call.lab.hub.gpus.devices())]}


def list_runs(call: Call) -> RunList:
    """All runs of all roots, newest first."""
    runs = list(call.lab.roots.all())
    call.lab.rows.keep_only({run.path for run in runs})
    rows = [call.lab.rows.row(run) for run in runs]
    return {"runs": sorted(rows, key=lambda row: -row["created"])}


def run_facts(call: Call) -> RunFacts:
    """One run with its spec and what it takes on the disk."""
    run = call.lab.roots.find(call.path["id"])
    row = call.lab.rows.row(run)
    if row["state"] == "damaged":
        raise Refusal(409, f"run {run.id[:8]} is damaged: {row['reason']}", "damaged")
    info, spec = run.info, run.spec
    chain = info.get("chain") or {}
    return {
        **row,
        "spec": spec.model_dump(mode="json"),
        "spec_hash": spec.hash,
        "disk": _disk_use(run.path),
        "lifetime": str(info.get("lifetime") or ""),
        "model_parameters": int(info.get("model_parameters") or 0),
        "stage_parameters": [int(count) for count in info.get("stage_parameters") or ()],
        "attesters": [str(entry["name"]) for entry in info.get("attesters") or ()],
        "chain_id": chain.get("chain_id") or None,
    }


def _disk_use(path: Path) -> DiskUse:
    sizes: dict[str, int] = {"events": 0, "evidence": 0, "checkpoints": 0, "logs": 0, "total": 0}
    places = {"evidence": "evidence", "workers": "checkpoints", "logs": "logs"}
    for folder, _, names in os.walk(path):
        top = Path(folder).relative_to(path).parts[:1]
        for name in names:
            try:
                size = os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # an older checkpoint went while we counted
            place = places.get(top[0]) if top else "events" if name.startswith("events.db") else None
            sizes["total"] += size
            if place is not None:
                sizes[place] += size
    return sizes  # type: ignore[return-value]


async def run_picture(call: Call) -> PictureReply:
    """The picture of a run for those who poll."""
    run = call.lab.roots.find(call.path["id"])
    seq, picture, silent_s, problem = await call.lab.hub.poll(run, call.query["points"], call.query["since"])
    return {"seq": seq, "picture": picture, "silent_s": silent_s, "problem": problem}  # type: ignore[typeddict-item]


def run_events(call: Call) -> EventPage:
    """Events as they are stored."""
    run = call.lab.roots.find(call.path["id"])
    since, limit = call.query["since"], min(call.query["limit"], call.lab.settings.max_events)
    kinds = call.query["kinds"].split(",") if call.query["kinds"] else None
    reader = EventReader(run.path / "events.db")
    try:
        events = reader.read(since=since, kinds=kinds, limit=limit)
    except json.JSONDecodeError as error:
        raise Refusal(409, f"run {run.id[:8]} is damaged: an event's body is no JSON ({error})", "damaged") from None
    finally:
        reader.close()
    found: list[RunEvent] = []
    for event in events:
        body: Any = event.body
        found.append(
            {
                "seq": event.seq,
                "time": event.time,
                "kind": event.kind,
                "worker": event.worker,
                "round": event.round,
                "body": body if isinstance(body, dict) else {"value": body},
            }
        )
    return {"events": found, "next": events[-1].seq if events else since}


def run_log(call: Call) -> LogTail:
    """The end of a process's log; empty before the process has said anything."""
    run, process = call.lab.roots.find(call.path["id"]), call.path["process"]
    lines = call.query["lines"]
    if not re.fullmatch(PATHS["process"][0], process):
        raise Refusal(404, f"{process[:80]!r} is no process of a run; they are supervisor, forkserver, worker-0, worker-1, ...")
    path = run.path / "logs" / f"{process}.log"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {"process": process, "text": ""}
    except OSError as error:
        raise Refusal(404, f"the log of {process} is no plain file ({error.strerror}), so it is not shown") from None
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refusal(404, f"the log of {process} is no plain file, so it is not shown")
        stream.seek(max(0, os.fstat(descriptor).st_size - lines * BYTES_A_LINE))
        text = stream.read(lines * BYTES_A_LINE).decode(errors="replace")
    return {"process": process, "text": "\n".join(text.splitlines()[-lines:])}


def run_receipts(call: Call) -> ReceiptPage:
    """Signed statements about one worker's work."""
    run = call.lab.roots.find(call.path["id"])
    query = call.query
    return call.lab.receipts.page(run, query["worker"], limit=query["limit"], offset=query["offset"], before=query["before"])


def metrics(call: Call) -> Text:
    """What the extension counts about itself, for Prometheus."""
    states = [call.lab.rows.row(run)["state"] for run in call.lab.roots.all()]
    return Text(call.lab.meters.text(states), CONTENT_TYPE)
