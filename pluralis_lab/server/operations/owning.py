"""Ownership: what epochs gave to whom, what the chain says, and paying, claiming, auditing in a child."""

import asyncio
from typing import Any, cast

from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.route import Call
from pluralis_lab.server.shapes.evidence import AuditReply
from pluralis_lab.server.shapes.ownership import Claims, ClosedEpoch, Ownership, Paid
from pluralis_lab.server.shapes.runs import AccountBody, PayBody
from pluralis_lab.store import RunDirectory

CHAIN_TIMEOUT_S = 300.0
AUDIT_TIMEOUT_S = 600.0


async def run_ownership(call: Call) -> Ownership:
    """Who owns the model: from the evidence, and from the chain where the run is bound to one that this server may ask."""
    run = call.lab.roots.find(call.path["id"])
    epochs = await asyncio.to_thread(_closed_epochs, run)
    chain = run.info.get("chain") or {}
    kind = str(chain.get("kind") or "none")
    reply: Ownership = {
        "chain": {
            "kind": kind,
            "chain_id": chain.get("chain_id") or None,
            "ledger": None if kind == "none" else chain.get("ledger"),
            "token": None if kind == "none" else chain.get("token"),
        },
        "state": "none",
        "problem": "",
        "accounts": [],
        "can_pay": False,
        "epochs": epochs,
        "token": None,
    }
    if kind == "none":
        return reply
    if (chain.get("url") or "embedded") not in call.lab.settings.allowed_chains:
        problem = f"this server may not ask the chain of this run; allowed_chains={list(call.lab.settings.allowed_chains)}"
        return {**reply, "state": "unreachable", "problem": problem}
    try:
        found = await call.lab.children.reader.ask(home=str(run.path.parent.parent), run=run.id)
    except Refusal as refusal:
        return {**reply, "state": "unreachable", "problem": refusal.message}
    merged = cast(Ownership, {**reply, **found})
    can_pay = kind == "embedded" and not call.lab.settings.read_only and bool(merged["accounts"]) and merged["token"] is not None
    return {**merged, "can_pay": can_pay}


def _closed_epochs(run: RunDirectory) -> list[ClosedEpoch]:
    names = {str(entry.get("address", "")).lower(): str(entry["name"]) for entry in run.info.get("participants") or ()}
    epochs: list[ClosedEpoch] = []
    for line in run.evidence.closes():
        amounts: dict[str, int] = {}
        for _, account, wei in line["amounts"]:
            name = names.get(str(account).lower(), str(account))
            amounts[name] = amounts.get(name, 0) + int(wei)
        epochs.append(
            {
                "epoch": int(line["epoch"]),
                "root": str(line["root"]),
                "shares": {str(name): f"{part}/{whole}" for name, (part, whole) in line["shares"].items()},
                "amounts_wei": {name: str(wei) for name, wei in amounts.items()},
                "attested_by": [str(attestation["attester"]) for attestation in line.get("attestations", ())],
            }
        )
    return epochs


async def tokenize_run(call: Call) -> Ownership:
    """Put the run's ownership on its chain: deploy, post the attested epochs, hand out the shares. Safe to repeat."""
    body: AccountBody = call.body
    await _in_child(call, "tokenize", account=body.account)
    return await run_ownership(call)


async def pay_run(call: Call) -> Paid:
    """Pay revenue to the owners, from an account that the embedded chain's daemon has unlocked."""
    body: PayBody = call.body
    return cast(Paid, await _in_child(call, "pay", account=body.account, amount_eth=body.amount_eth))


async def claim_run(call: Call) -> Claims:
    """Take what an account, or all accounts of this home, have earned."""
    body: AccountBody = call.body
    return cast(Claims, await _in_child(call, "claim", account=body.account))


async def _in_child(call: Call, op: str, **arguments: Any) -> dict[str, Any]:
    run = call.lab.roots.find(call.path["id"])
    kind = str((run.info.get("chain") or {}).get("kind") or "none")
    if kind == "none":
        raise Refusal(409, f"run {run.id[:8]} was simulated without a chain, so there is nothing to {op}")
    if kind != "embedded":
        raise Refusal(
            409, f"run {run.id[:8]} is on a node whose accounts need a passphrase, which no server asks for; {op} in a notebook"
        )
    if "embedded" not in call.lab.settings.allowed_chains:
        raise Refusal(403, "the embedded chain is not among this server's allowed_chains", "chain-not-allowed")
    return await call.lab.children.once(op, run.path.parent.parent, run=run.id, timeout_s=CHAIN_TIMEOUT_S, **arguments)


async def audit_run(call: Call) -> AuditReply:
    """Compute every share again from the public evidence. Changes nothing, so it is answered in read-only mode, too."""
    run = call.lab.roots.find(call.path["id"])
    home = run.path.parent.parent
    return cast(AuditReply, await call.lab.children.once("audit", home, run=run.id, timeout_s=AUDIT_TIMEOUT_S))
