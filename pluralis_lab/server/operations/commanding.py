"""Commands to runs: start, stop, resume, kill, delete."""

import asyncio

from pluralis_lab.engines import processes
from pluralis_lab.errors import RunError
from pluralis_lab.run import Run
from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.route import Call
from pluralis_lab.server.shapes.runs import KillBody, LaunchBody, Started, StateReply
from pluralis_lab.store import RunDirectory

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


def kill_worker(call: Call) -> StateReply:
    """Kill a worker of this machine; its slot is started again."""
    body: KillBody = call.body
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
