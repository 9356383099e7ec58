"""What a notebook shows of a chain and an account. Looking starts nothing, waits for nobody long, and shows no secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pluralis_lab.chain.place import ChainPlace
from pluralis_lab.errors import PluralisError
from pluralis_lab.markup import facts, paragraph, table

if TYPE_CHECKING:
    from pathlib import Path

    from pluralis_lab.chain.client import Chain

PATIENCE_S = 2.0
_MAX_ACCOUNTS = 20


def public_url(url: str) -> str:
    """Return `url` without what may be a key: user, password, path and query of hosted nodes are."""
    parts = urlsplit(url)
    port = f":{parts.netloc.rpartition(':')[2]}" if parts.netloc.rpartition(":")[2].isdigit() else ""
    hidden = "/…" if parts.path.strip("/") or parts.query or parts.fragment else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{hidden}"


def chain_html(chain: Chain) -> str:
    """Return the facts of a chain as it answers now, or that it does not."""
    rows: list[tuple[str, object]] = [("kind", chain.kind)]
    if chain.url is not None:
        rows.append(("node", public_url(chain.url)))
    rows += [("profile", chain.profile), ("home", chain.home)]
    try:
        number = _node_chain_id(chain.url) if chain.url is not None else _daemon_answer(chain.home, "eth_chainId")
        accounts = _daemon_answer(chain.home, "pluralis_accounts", chain.kind)
    except (PluralisError, OSError, ValueError, LookupError, TypeError) as error:
        # Not the error's own text: that of an HTTP library has the whole address in it, and so perhaps a key.
        return facts("Chain", rows) + paragraph(f"the chain cannot be asked now ({type(error).__name__})")
    if number is not None:
        rows.append(("chain id", int(str(number), 16)))
    shown = facts("Chain", rows)
    if accounts is None:
        return shown + paragraph("the chain daemon of this home is not running; the next call that needs it starts it")
    if not isinstance(accounts, dict) or not accounts:
        return shown + paragraph("no accounts yet; chain.account('lab-a') makes one")
    more = f" ({_MAX_ACCOUNTS} of {len(accounts)})" if len(accounts) > _MAX_ACCOUNTS else ""
    return shown + table(f"Accounts{more}", ("name", "address"), list(accounts.items())[:_MAX_ACCOUNTS])


def _daemon_answer(home: Path, method: str, *params: object) -> object:
    """Return the answer of the home's daemon, or None when none is running: a look must not start one."""
    connection = ChainPlace(home).connect()
    if connection is None:
        return None
    with connection:
        connection.settimeout(PATIENCE_S)
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        with connection.makefile("rb") as stream:
            return json.loads(stream.readline())["result"]


def _node_chain_id(url: str) -> object:
    import requests

    question: Any = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    return requests.post(url, json=question, timeout=PATIENCE_S).json()["result"]
