"""`python -m pluralis_lab.server.chain_reader`: reads runs' tokens from their chains; loading web3 takes seconds."""

from pathlib import Path
from typing import Any

from pluralis_lab.chain import Chain, Token
from pluralis_lab.errors import ChainError
from pluralis_lab.server.lines import answer_all
from pluralis_lab.store import RunDirectory

_chains: dict[tuple[str, str | None], Chain] = {}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer {"home", "run"} with the part of `Ownership` that only the chain knows."""
    home = request["home"]
    info = RunDirectory(Path(home) / "runs" / request["run"]).info
    bound = info["chain"]
    try:
        chain = _chains.get((home, bound.get("url")))
        if chain is None:
            chain = _chains[home, bound.get("url")] = Chain.from_description(bound, home=home)
        chain.require_id(int(bound["chain_id"]))
        accounts = [account.name for account in chain.accounts()]
        if not chain.web3.eth.get_code(bound["token"]):
            return {"state": "untokenized", "accounts": accounts, "token": None}
        return {"state": "tokenized", "accounts": accounts, "token": _token_facts(Token.open(info, chain))}
    except ChainError as error:
        return {"state": "unreachable", "problem": str(error), "accounts": [], "token": None}


def _token_facts(token: Token) -> dict[str, Any]:
    status = token.status()
    holders = token.shares().to_dict("records")
    sums = {f"{name}_wei": str(status[f"{name}_wei"]) for name in ("supply", "paid", "claimed", "claimable", "dust")}
    return {
        **{name: status[name] for name in ("name", "symbol", "epochs_posted", "epochs_finalized")},
        **sums,
        "holders": [
            {
                "account": str(row["account"]),
                "name": str(row["name"]),
                "percent": float(row["percent"]),
                **{name: str(row[name]) for name in ("shares_wei", "claimable_wei", "claimed_wei")},
            }
            for row in holders
        ],
    }


if __name__ == "__main__":
    answer_all(answer)
