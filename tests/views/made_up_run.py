"""A made-up run for the tests of the views: plausible events, written through the real store. Nothing here was trained."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec
from pluralis_lab.store import RunDirectory

Row = tuple[str, str | None, int | None, dict[str, Any], float]
PARTICIPANTS = ("lab-a", "lab-b", "lab-c")
UNIGRAM_NATS = 3.2451
STAGE_PARAMETERS = (462_080, 396_800, 429_568)
START = 1_790_000_000.0
KILLED, KILLED_AT, BACK_AT = "worker-3", 87, 96


def make_run(
    home: Path,
    *,
    rounds: int = 200,
    stages: int = 3,
    replicas: int = 2,
    epoch_rounds: int = 25,
    names: list[str] | None = None,
    participants: tuple[str, ...] = PARTICIPANTS,
    run_id: str = "9f3c21ab" + "5e" * 28,
    start: float = START,
    own_data: float = 0.0,
) -> RunDirectory:
    """Make the folder of a run without events."""
    spec = RunSpec(
        model=GPT(n_layer=max(6, stages), n_head=4, d_model=128, context=128),
        stages=stages,
        replicas=replicas,
        steps=rounds,
        epoch_rounds=epoch_rounds,
        own_data=own_data,
    )
    names = names or [f"worker-{i}" for i in range(stages * replicas)]
    sizes = [STAGE_PARAMETERS[i % 3] for i in range(stages)]
    info = {
        "id": run_id,
        "engine": "swarm",
        "created": start,
        "spec_hash": spec.hash,
        "state": "starting",
        "participants": [{"name": name, "address": address(i)} for i, name in enumerate(participants)],
        "workers": [
            {"name": name, "stage": i // replicas, "replica": i % replicas, "participant": participants[i % len(participants)]}
            for i, name in enumerate(names)
        ],
        "corpus": {"name": "stdlib", "kind": "tokens", "vocab": 256, "unigram_nats": UNIGRAM_NATS},
        "stage_parameters": sizes,
        "model_parameters": sum(sizes),
    }
    return RunDirectory.create(home, spec, info)


def address(index: int) -> str:
    """Return an address that looks like one."""
    return "0x" + f"{index + 0xA0:02x}" * 20


def event_rows(run: RunDirectory, *, until: int | None = None, seed: int = 7, start: float = START) -> Iterator[Row]:
    """Yield the events of the run's first `until` rounds (all, and its end, if None); one worker dies and comes back."""
    luck = random.Random(seed)
    spec, workers = run.spec, run.info["workers"]
    participants = run.info["participants"]
    last = spec.steps if until is None else until
    now = start
    yield "run.state", None, None, {"state": "starting", "reason": ""}, now
    for i, worker in enumerate(workers):
        for state in ("starting", "joining", "warming", "active"):
            now += 0.11
            yield "worker.state", worker["name"], None, _state(run, worker, state, pid=4000 + i), now
    yield "run.state", None, None, {"state": "running", "reason": ""}, now
    wire = {"forward_bytes_per_token": 34.6, "backward_bytes_per_token": 32.5, "codec_forward": 34, "codec_backward": 32}
    yield "wire", None, 0, wire, now
    work: dict[str, float] = {}
    dead: set[str] = set()
    for round_ in range(last):
        seconds = 0.52 + 0.06 * luck.random()
        if round_ == KILLED_AT and len(workers) > 3:
            killed = workers[3]
            dead.add(killed["name"])
            reason = "killed by signal 9"
            yield "worker.state", killed["name"], round_, _state(run, killed, "dead", pid=4003, reason=reason), now
            for index in range(4):
                body = {"index": index, "stage": killed["stage"], "dead": killed["name"], "to": workers[2]["name"]}
                yield "reroute", workers[0]["name"], round_, body, now + 0.01 * index
            seconds += 1.9
        if round_ == BACK_AT and len(workers) > 3:
            dead.clear()
            for state in ("starting", "joining", "syncing", "warming", "active"):
                now += 0.05
                yield "worker.state", workers[3]["name"], round_, _state(run, workers[3], state, pid=4777, incarnation=1), now
        if dead:
            seconds *= 1.35
        now += seconds
        tokens = 4096
        for worker in workers:
            if worker["name"] in dead:
                continue
            peers = [w["name"] for w in workers if abs(w["stage"] - worker["stage"]) == 1 and w["name"] not in dead]
            twins = [w["name"] for w in workers if w["stage"] == worker["stage"] and w is not worker]
            alone = any(name in dead for name in twins)
            mine = tokens if alone else tokens // 2 + luck.choice((-512, 0, 0, 0, 512))
            links = {peer: _link(worker, peer, workers, mine // max(1, len(peers))) for peer in peers}
            links |= {twin: {"sync_bytes": 4 * 429_568 // 2} for twin in twins if twin not in dead}
            flops = 6 * 430_000 * mine * (1.0 + 0.2 * (worker["stage"] == 2))
            work[worker["participant"]] = work.get(worker["participant"], 0.0) + flops
            body = {
                "tokens": mine,
                "work_flops": flops,
                "grad_norm": 0.35 + 2.4 * math.exp(-round_ / 22) + 0.09 * luck.random() + (1.2 if round_ == 140 else 0.0),
                "agreement": None if alone or not twins else 0.42 + 0.4 * math.exp(-round_ / 60) + 0.06 * luck.gauss(0, 1),
                "compute_s": seconds * 0.7,
                "bytes_out": sum(sum(v for k, v in link.items() if k.endswith("bytes")) for link in links.values()),
                "bytes_in": 1_900_000,
                "links": links,
            }
            yield "worker.round", worker["name"], round_, body, now
        loss = 2.05 + 3.45 * math.exp(-round_ / 38) + 0.035 * luck.gauss(0, 1)
        body = {"loss": loss, "tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds}
        yield "round", None, round_, body, now
        if (round_ + 1) % spec.eval_every == 0:
            yield "validation", None, round_, {"loss": loss + 0.08, "tokens": 8192}, now
        if (round_ + 1) % spec.epoch_rounds == 0 or round_ + 1 == spec.steps:
            yield "epoch", None, round_, _close(spec, participants, work, round_ // spec.epoch_rounds), now
            work = {}
    if until is None:
        end = spec.steps - 1
        yield "run.state", None, None, {"state": "serving", "reason": ""}, now
        for state, at in (("serving", now), ("stopped", now + 1)):
            for i, worker in enumerate(workers):
                came_back = i == 3 and end >= BACK_AT
                life = {"pid": 4777, "incarnation": 1} if came_back else {"pid": 4000 + i}
                yield "worker.state", worker["name"], end, _state(run, worker, state, **life), at
        yield "run.state", None, None, {"state": "stopped", "reason": ""}, now + 1


def _state(run: RunDirectory, worker: dict[str, Any], state: str, **more: Any) -> dict[str, Any]:
    size = run.info["stage_parameters"][worker["stage"]]
    place = {key: worker[key] for key in ("stage", "replica", "participant")}
    return {"state": state, **place, "device": "cpu", "incarnation": 0, "reason": "", "parameters": size, **more}


def _link(worker: dict[str, Any], peer: str, workers: list[dict[str, Any]], tokens: int) -> dict[str, float]:
    other = next(w for w in workers if w["name"] == peer)
    if other["stage"] > worker["stage"]:
        return {"forward_bytes": tokens * 34.6, "forward_tokens": tokens}
    return {"backward_bytes": tokens * 32.5, "backward_tokens": tokens}


def _close(spec: Any, participants: list[dict[str, Any]], work: dict[str, float], epoch: int) -> dict[str, Any]:
    units = {p["name"]: round(work.get(p["name"], 0.0)) for p in participants}
    total = sum(units.values())
    emission = spec.emission * 10**18
    amounts = {p["address"]: emission * units[p["name"]] // total for p in participants}
    first = participants[0]["address"]
    amounts[first] += emission - sum(amounts.values())
    return {
        "epoch": epoch,
        "root": "ab" * 32,
        "statements": 900,
        "shares": {name: [count, total] for name, count in units.items()},
        "amounts": {where: str(amount) for where, amount in amounts.items()},
        "attested_by": [p["name"] for p in participants],
        "unpaid": 0,
    }


def write_rows(run: RunDirectory, rows: Iterator[Row]) -> RunDirectory:
    """Append `rows` to the run's events."""
    writer = run.writer()
    try:
        writer.append_all(list(rows))
    finally:
        writer.close()
    return run
