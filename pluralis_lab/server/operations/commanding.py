"""Commands to runs: start, stop, resume, attach, invite, detach, kill, delete."""

import asyncio
import ipaddress
import time
from typing import cast

from pluralis_lab.engines import processes
from pluralis_lab.errors import RunError
from pluralis_lab.run import Run
from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.route import Call
from pluralis_lab.server.shapes.runs import AttachBody, Attached, InviteBody, Invited, LaunchBody, Started, StateReply, WorkerBody
from pluralis_lab.store import RunDirectory

ATTACH_TIMEOUT_S = 120.0
LAUNCH_TIMEOUT_S = 240.0
"""More than a supervisor is given to start; with a corpus that must be fetched first it may not do, and says so."""


async def launch_run(call: Call) -> Started:
    """Start a run in the first root; it outlives this server."""
    body: LaunchBody = call.body
    settings = call.lab.settings
    if body.chain not in settings.allowed_chains:
        raise Refusal(
            403, f"chain={body.chain[:80]!r} is not among allowed_chains={list(settings.allowed_chains)}", "chain-not-allowed"
        )
    if body.chain != "embedded":
        raise Refusal(
            400, f"chain={body.chain[:80]!r}: its accounts need a passphrase, which no server asks for; launch from a notebook"
        )
    found = await call.lab.children.once(
        "launch",
        settings.roots[0],
        timeout_s=LAUNCH_TIMEOUT_S,
        spec=body.spec,
        account=body.account or "default",
        participants=body.participants,
    )
    return {"id": str(found["id"])}


async def resume_run(call: Call) -> StateReply:
    """Go on from the newest checkpoint that every stage has."""
    run = call.lab.roots.find(call.path["id"])
    if run.info["engine"] != "swarm":
        raise Refusal(409, f"run {run.id[:8]} is a simulation, which lives as long as who resumes it; resume it from a notebook")
    await call.lab.children.once("resume", run.path.parent.parent, run=run.id, timeout_s=LAUNCH_TIMEOUT_S)
    return {"state": call.lab.rows.state(run)[0]}


def stop_run(call: Call) -> StateReply:
    """End a run's processes and wait until they are gone."""
    run = call.lab.roots.find(call.path["id"])
    if not processes.stop(run):
        raise Refusal(409, f"run {run.id[:8]} is not running (state {call.lab.rows.state(run)[0]}), so there is nothing to stop")
    return _state(call, run)


async def attach_worker(call: Call) -> Attached:
    """Add a worker of this machine to a live run; returns while it starts, gets its stage's state and takes part."""
    body: AttachBody = call.body
    run = call.lab.roots.find(call.path["id"])
    _check_takes_workers(call, run)
    _check_stage(run, body.stage)
    if (run.info.get("chain") or {}).get("kind") == "url":
        raise Refusal(
            409, f"run {run.id[:8]}: an account of its chain needs a passphrase, which no server asks for; attach from a notebook"
        )
    home = run.path.parent.parent
    found = await call.lab.children.once(
        "attach",
        home,
        run=run.id,
        timeout_s=ATTACH_TIMEOUT_S,
        device=body.device,
        stage=body.stage,
        account=body.account,
        data=body.data,
    )
    return cast(Attached, found)


def invite_workers(call: Call) -> Invited:
    """Make an invitation for a live run. Its text is a secret: it is in this reply, and nowhere else."""
    body: InviteBody = call.body
    run = call.lab.roots.find(call.path["id"])
    _check_takes_workers(call, run)
    _check_stage(run, body.stage)
    until = time.time() + 3600 * body.for_hours
    made = Run(run).invite(seats=body.seats, stage=body.stage, for_hours=body.for_hours)
    return {
        "invitation": str(made),
        "seats": body.seats,
        "until": until,
        "host": made.host,
        "port": made.port,
        "is_local": ipaddress.ip_address(made.host).is_loopback,
    }


def _check_takes_workers(call: Call, run: RunDirectory) -> None:
    """Raise Refusal (409) for a run that no worker can come to, before a process is started that would find the same."""
    if run.info["engine"] != "swarm":
        raise Refusal(409, f"run {run.id[:8]} is a simulation, which has no processes; add workers to a run that was launched")
    state = call.lab.rows.state(run)[0]
    if state == "serving":
        raise Refusal(409, f"run {run.id[:8]} has trained all its rounds, so there is no work left to share; launch another run")
    if state == "paused":
        raise Refusal(409, f"run {run.id[:8]} is paused and goes back to its last checkpoint; add the worker when it is on again")
    if state not in ("starting", "running"):
        raise Refusal(409, f"run {run.id[:8]} is not running (state {state}); resume it, then add a worker")


def _check_stage(run: RunDirectory, stage: int | None) -> None:
    if stage is not None and stage >= run.spec.stages:
        raise Refusal(400, f"stage={stage}; the run has the stages 0 to {run.spec.stages - 1}; leave it out for the thinnest")


def detach_worker(call: Call) -> StateReply:
    """Ask a worker to leave for good; returns while it finishes what it has begun."""
    body: WorkerBody = call.body
    run = call.lab.roots.find(call.path["id"])
    Run(run).detach(body.worker)
    return _state(call, run)


def kill_worker(call: Call) -> StateReply:
    """Kill a worker of this machine; its slot is started again."""
    body: WorkerBody = call.body
    run = call.lab.roots.find(call.path["id"])
    processes.command(run, "kill", worker=body.worker)
    return _state(call, run)


async def delete_run(call: Call) -> None:
    """Remove a run that has ended: events, evidence, checkpoints, logs. What is on its chain stays there."""
    run = call.lab.roots.find(call.path["id"])
    try:
        await asyncio.to_thread(Run(run).delete)
    except RunError as error:
        raise Refusal(409, str(error), "running") from None
    call.lab.hub.forget(run.id)


def _state(call: Call, run: RunDirectory) -> StateReply:
    return {"state": call.lab.rows.state(run)[0]}
