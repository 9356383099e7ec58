"""Ownership: what the epochs gave to whom, and what the chain says. Wei are decimal texts, which exceed 2^53."""

from typing import Literal

from pydantic import with_config
from typing_extensions import TypedDict

from pluralis_lab.server.shapes.base import EXACT


@with_config(EXACT)
class Holder(TypedDict):
    """One owner of a tokenized model."""

    account: str
    name: str
    shares_wei: str
    percent: float
    claimable_wei: str
    claimed_wei: str


@with_config(EXACT)
class TokenFacts(TypedDict):
    """A model's token: paid == claimed + claimable + dust, exactly."""

    name: str
    symbol: str
    epochs_posted: int
    epochs_finalized: int
    supply_wei: str
    paid_wei: str
    claimed_wei: str
    claimable_wei: str
    dust_wei: str
    holders: list[Holder]


@with_config(EXACT)
class ClosedEpoch(TypedDict):
    """One closed epoch's table; `shares` are exact fractions by participant, `amounts_wei` token wei by participant."""

    epoch: int
    root: str
    shares: dict[str, str]
    amounts_wei: dict[str, str]
    attested_by: list[str]


@with_config(EXACT)
class ChainFacts(TypedDict):
    """The chain a run is bound to."""

    kind: str
    chain_id: int | None
    ledger: str | None
    token: str | None


@with_config(EXACT)
class Ownership(TypedDict):
    """Who owns the model."""

    chain: ChainFacts
    state: Literal["none", "untokenized", "tokenized", "unreachable"]
    problem: str
    accounts: list[str]
    can_pay: bool
    epochs: list[ClosedEpoch]
    token: TokenFacts | None


@with_config(EXACT)
class Paid(TypedDict):
    """A payment that was mined."""

    transaction: str
    wei: str
    account: str
    block: int


@with_config(EXACT)
class Claim(TypedDict):
    """What one account took."""

    account: str
    name: str
    wei: str


@with_config(EXACT)
class Claims(TypedDict):
    """What a claim brought; an account that had earned nothing since its last one is not listed."""

    claims: list[Claim]
