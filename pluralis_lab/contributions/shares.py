"""Shares: an epoch's units as exact fractions, and the token wei that follow from them to the last one."""

from collections.abc import Mapping
from fractions import Fraction

from pluralis_lab.errors import EvidenceError

HALVING_EPOCHS = 1000
"""Epochs after which the emission halves; the ledger is deployed with the same number."""

WEI = 10**18
"""Smallest units of one token."""


def shares(units: Mapping[str, int]) -> dict[str, Fraction]:
    """Return each participant's share of all `units`: positive, and exactly 1 in sum; empty when there are none.

    Raises EvidenceError for negative units.
    """
    if any(value < 0 for value in units.values()):
        raise EvidenceError(f"units={dict(units)}; units are never negative")
    total = sum(units.values())
    return {name: Fraction(value, total) for name, value in sorted(units.items()) if value > 0}


def amounts_wei(shares: Mapping[str, Fraction], addresses: Mapping[str, str], emission_wei: int) -> dict[str, int]:
    """Return the wei of each account, in the order of the addresses; exactly `emission_wei` in sum, or empty.

    Every account gets the floor of its due; what is left goes, a wei each, to the largest remainders, and among equal
    ones to the lowest address. Participants who share an account are paid together; an account with 0 wei is left out.

    addresses : account of each participant
    Raises EvidenceError when the shares do not sum to 1 or a participant has no address.
    """
    if not shares or emission_wei == 0:
        return {}
    if sum(shares.values()) != 1 or min(shares.values()) < 0:
        raise EvidenceError(f"shares sum to {sum(shares.values())}; they are positive and sum to exactly 1")
    due: dict[str, Fraction] = {}
    for name, share in shares.items():
        if name not in addresses:
            raise EvidenceError(f"participant {name!r} has a share, but no account")
        due[addresses[name]] = due.get(addresses[name], Fraction(0)) + share * emission_wei
    amounts = {address: int(exact) for address, exact in due.items()}
    left = emission_wei - sum(amounts.values())
    by_remainder = sorted(due, key=lambda address: (amounts[address] - due[address], address.lower()))
    for address in by_remainder[:left]:
        amounts[address] += 1
    return {address: amounts[address] for address in sorted(amounts, key=str.lower) if amounts[address] > 0}


def emission_wei(emission: int, epoch: int) -> int:
    """Return the wei that `epoch` mints when epoch 0 mints `emission` whole tokens: halved every `HALVING_EPOCHS`.

    Raises EvidenceError for negative values.
    """
    if emission < 0 or epoch < 0:
        raise EvidenceError(f"emission={emission}, epoch={epoch}; neither is negative")
    return emission * WEI >> (epoch // HALVING_EPOCHS)
