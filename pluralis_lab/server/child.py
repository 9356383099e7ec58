"""`python -m pluralis_lab.server.child OP`: one operation that changes a run, or needs a heavy library."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pluralis_lab.errors import ChainError
from pluralis_lab.server.lines import answer_all


class UnknownAccountError(ChainError):
    """The request names an account that this home does not have."""


def launch(request: dict[str, Any]) -> dict[str, Any]:
    """Start a run that outlives this process and the server."""
    import json

    import pluralis_lab as pl

    home = Path(request["home"])
    spec = pl.RunSpec.from_json(json.dumps(request["spec"]))
    run = pl.launch(
        spec,
        chain=pl.Chain.embedded(home=home),
        account=request["account"],
        participants=request["participants"],
        lifetime="detached",
        home=home,
    )
    return {"id": run.id}


def resume(request: dict[str, Any]) -> dict[str, Any]:
    """Go on with a run that has ended."""
    _run(request).resume(lifetime="detached")
    return {}


def attach(request: dict[str, Any]) -> dict[str, Any]:
    """Add a worker to a live run."""
    run = _run(request)
    account = _account(run, request["account"])
    worker = run.attach(request["device"], stage=request["stage"], account=account, data=request["data"])
    return {"worker": worker.name, "stage": worker.stage, "replica": worker.replica, "participant": worker.participant}


def tokenize(request: dict[str, Any]) -> dict[str, Any]:
    """Put a run's ownership on its chain."""
    run = _run(request)
    run.tokenize(_account(run, request["account"]))
    return {}


def pay(request: dict[str, Any]) -> dict[str, Any]:
    """Pay revenue to a run's owners."""
    run = _run(request)
    account = _account(run, request["account"] or run.info["account"])
    paid = run.token.pay(ether=request["amount_eth"], account=account)
    return {"transaction": paid["transaction"], "wei": str(paid["wei"]), "account": paid["account"], "block": paid["block"]}


def claim(request: dict[str, Any]) -> dict[str, Any]:
    """Take what one account or all accounts of this home have earned."""
    run = _run(request)
    table = run.token.claim(_account(run, request["account"]))
    rows = table.to_dict("records")
    return {"claims": [{"account": row["account"], "name": row["name"], "wei": str(row["wei"])} for row in rows]}


def audit(request: dict[str, Any]) -> dict[str, Any]:
    """Compute every share again from the public evidence."""
    begun = time.perf_counter()
    report = _run(request).audit()

    def plain(findings: Any) -> list[dict[str, Any]]:
        return [{"kind": f.kind, "epoch": f.epoch, "subject": f.subject, "detail": f.detail} for f in findings]

    return {
        "ok": report.ok,
        "verdict": str(report).splitlines()[0],
        "findings": plain(report.findings),
        "notes": plain(report.notes),
        "epochs": len(report.tables),
        "statements": report.num_statements,
        "attestations": report.num_attestations,
        "unattested_units": str(sum(table.unattested_units for table in report.tables)),
        "ownership": [
            {
                "epoch": int(row["epoch"]),
                "participant": str(row["participant"]),
                "units": str(row["units"]),
                "share": str(row["share"]),
                "percent": float(row["percent"]),
            }
            for row in report.ownership.to_dict("records")
        ],
        "seconds": time.perf_counter() - begun,
    }


def _run(request: dict[str, Any]) -> Any:
    from pluralis_lab.run import Run
    from pluralis_lab.store import RunDirectory

    return Run(RunDirectory(Path(request["home"]) / "runs" / request["run"]))


def _account(run: Any, name: str | None) -> str | None:
    """Return `name` if it is an account of this home: one that is asked for over the network is never made on the way."""
    if name is not None:
        from pluralis_lab.chain import Chain

        known = [account.name for account in Chain.from_description(run.info["chain"], home=run.path.parent.parent).accounts()]
        if name not in known:
            raise UnknownAccountError(f"account={name!r} is not in this home; it has {', '.join(known) or 'none'}")
    return name


OPERATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    operation.__name__: operation for operation in (launch, resume, attach, tokenize, pay, claim, audit)
}

if __name__ == "__main__":
    answer_all(OPERATIONS[sys.argv[1]])
