"""Ownership on a chain: contracts, an embedded chain, accounts whose keys stay in its daemon, the client and the token."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluralis_lab.chain.client import Account, Chain
    from pluralis_lab.chain.token import Token

__all__ = ["Account", "Chain", "Token"]

_HOMES = {"Account": "client", "Chain": "client", "Token": "token"}


def __getattr__(name: str) -> Any:
    """Load the client on first use, so that importing a part of this package stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
