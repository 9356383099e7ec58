"""`audit`, `tokenize`, `pay`, `claim`: from the evidence to the owners."""

import json
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from pluralis_lab.cli.options import AccountOption, AnyRunArgument, JsonOption, RunArgument
from pluralis_lab.cli.printing import find_directory, print_frame


def audit(run: AnyRunArgument = None, as_json: JsonOption = False) -> None:
    """Compute every share again from the public evidence; status 1 if anything does not hold."""
    import dataclasses

    import pluralis_lab as pl

    found = find_directory(run)
    report = pl.open_run(found.id).audit()
    if as_json:
        findings = [
            dataclasses.asdict(finding) if dataclasses.is_dataclass(finding) and not isinstance(finding, type) else str(finding)
            for finding in report.findings
        ]
        typer.echo(json.dumps({"run": found.id, "ok": report.ok, "findings": findings}, indent=1, default=str))
    else:
        for finding in report.findings:
            typer.echo(str(finding))
        typer.echo(f"audit of {found.id[:8]}: {'everything holds' if report.ok else 'does NOT hold'}")
    if not report.ok:
        raise typer.Exit(1)


def tokenize(run: RunArgument, account: AccountOption = None) -> None:
    """Put a run's closed epochs on its chain and show who owns what."""
    import pluralis_lab as pl

    found = find_directory(run)
    token = pl.open_run(found.id).tokenize(**({"account": account} if account else {}))
    typer.echo(f"token {token.address}  ledger {token.ledger}")
    print_frame(token.shares())


def pay(
    run: RunArgument,
    ether: Annotated[str, typer.Option(help="Ether to pay to the owners, e.g. 0.5.")],
    account: AccountOption = None,
) -> None:
    """Pay revenue to the owners of a run."""
    try:
        amount = Decimal(ether)
    except InvalidOperation:
        raise typer.BadParameter(f"{ether!r} is not a number", param_hint="--ether") from None
    if not amount.is_finite() or amount <= 0:
        raise typer.BadParameter(f"{ether} is not a positive amount", param_hint="--ether")
    token = _token(run)
    token.pay(ether=amount, **({"account": account} if account else {}))
    typer.echo(f"paid {amount} ether to the owners of {find_directory(run).id[:8]}")
    print_frame(token.shares())


def claim(run: RunArgument, account: AccountOption = None) -> None:
    """Claim revenue: for one account, or for every account of this home."""
    print_frame(_token(run).claim(**({"account": account} if account else {})))


def _token(run: str) -> Any:
    import pluralis_lab as pl

    found = find_directory(run)
    return pl.open_run(found.id).token
