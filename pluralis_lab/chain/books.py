"""The token's accounts read back from the chain and added up exactly: every wei paid is claimed, claimable or dust."""

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pluralis_lab.chain.claims import Claim, ClaimBook
from pluralis_lab.chain.reads import read_many

if TYPE_CHECKING:
    from pluralis_lab.chain.client import Chain

SCALE = 1 << 128  # ModelToken.SCALE
UNASSIGNED = "0x" + "00" * 20  # stands for shares in the ledger whose claimant this home does not know


@dataclass(frozen=True)
class Holder:
    """One owner: `shares` in token wei, those in the ledger included; `claimable` and `claimed` revenue in whole wei."""

    shares: int
    claimable: int
    claimed: int


@dataclass(frozen=True)
class Books:
    """All owners and the sums, in wei; `unclaimed` are the known claims of final epochs that nobody has relayed yet."""

    holders: dict[str, Holder]
    supply: int
    paid: int
    claimed: int
    unclaimed: list[Claim]
    unclaimed_shares: int

    @property
    def claimable(self) -> int:
        """Whole wei that holders can take."""
        return sum(holder.claimable for holder in self.holders.values())

    @property
    def dust(self) -> int:
        """Wei in the token made of the fractions that no holder can take yet."""
        return self.paid - self.claimed - self.claimable


def read_books(chain: "Chain", token: Any, ledger: Any, claim_book: ClaimBook) -> Books:
    """Read one block's state of a token, so that what is read adds up even while others transact."""
    block = int(chain.web3.eth.block_number)
    at = {"block_identifier": block}
    shares: defaultdict[str, int] = defaultdict(int)
    credit: defaultdict[str, int] = defaultdict(int)
    claimed: defaultdict[str, int] = defaultdict(int)
    for log in token.events.RevenueClaimed().get_logs(from_block=0, to_block=block):
        claimed[log["args"]["account"]] += int(log["args"]["amount"])
    moved = token.events.Transfer().get_logs(from_block=0, to_block=block)
    owners = sorted({log["args"]["to"] for log in moved} - {ledger.address})
    asked = [(owner,) for owner in owners]
    shares.update(zip(owners, read_many(token, "balanceOf", asked, block), strict=True))
    credit.update(zip(owners, read_many(token, "revenueCredit", asked, block), strict=True))

    index = int(token.functions.revenueIndex().call(**at))
    claims, _ = claim_book.load()
    by_epoch: defaultdict[int, list[Claim]] = defaultdict(list)
    for claim in claims:
        by_epoch[claim.epoch].append(claim)
    unclaimed, unclaimed_shares = [], 0
    for epoch in range(int(ledger.functions.nextEpoch().call(**at))):
        record = ledger.functions.epochRecord(epoch).call(**at)
        revenue_index, minted, handed_out, is_final = record[3], record[4], record[5], record[7]
        left = minted - handed_out
        if not is_final or not left:
            continue
        unclaimed_shares += left
        done = read_many(ledger, "isClaimed", [(epoch, claim.index) for claim in by_epoch[epoch]], block)
        for claim, is_claimed in zip(by_epoch[epoch], done, strict=True):
            if not is_claimed:
                unclaimed.append(claim)
                shares[claim.account] += claim.amount
                credit[claim.account] += claim.amount * (index - revenue_index)
                left -= claim.amount
        if left:
            shares[UNASSIGNED] += left
            credit[UNASSIGNED] += left * (index - revenue_index)

    holders = {
        account: Holder(shares[account], credit[account] // SCALE, claimed[account])
        for account in {*shares, *claimed}
        if shares[account] or credit[account] or claimed[account]
    }
    return Books(
        holders=holders,
        supply=int(token.functions.totalSupply().call(**at)),
        paid=int(token.functions.totalPaid().call(**at)),
        claimed=int(token.functions.totalClaimed().call(**at)),
        unclaimed=unclaimed,
        unclaimed_shares=unclaimed_shares,
    )
