"""`Token`: who owns a tokenized model, what it earned, and taking one's part."""

from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pluralis_lab.chain.books import UNASSIGNED, Books, read_books
from pluralis_lab.chain.claims import ClaimBook
from pluralis_lab.chain.client import WEI, Chain, to_wei
from pluralis_lab.chain.deploy import ledger_contract, token_contract
from pluralis_lab.chain.tokenize import batches, claim_step, send_batch
from pluralis_lab.errors import ChainError
from pluralis_lab.markup import facts, paragraph, table

if TYPE_CHECKING:
    import pandas as pd


def account_names(run_info: dict[str, Any]) -> dict[str, str]:
    """Names by address of a run's participants and attesters."""
    entries = [*run_info.get("attesters", ()), *run_info.get("participants", ())]
    return {entry["address"]: entry["name"] for entry in entries}


class Token:
    """The shares of one run's model on its chain. Made by `Chain.tokenize` or `Token.open`.

    Parameters
    ----------
    chain : where it lives; address, ledger : its contracts
    account : the account that pays when a method is given none
    """

    def __init__(self, chain: Chain, address: str, ledger: str, *, account: str | None = None) -> None:
        self.chain, self.address, self.ledger = chain, address, ledger
        self._account = account

    @classmethod
    def open(cls, run_info: dict[str, Any], chain: Chain | None = None) -> "Token":
        """The token of a run.json. Raises ChainError before the run is tokenized, and when the node is another chain now."""
        bound = run_info.get("chain") or {}
        if bound.get("chain_id") is None:
            raise ChainError(f"run {str(run_info['id'])[:8]} was launched without a chain, so it has no token")
        if chain is None:
            chain = Chain.from_description(bound)
        else:
            chain.require_id(int(bound["chain_id"]))
        if not chain.web3.eth.get_code(bound["token"]):
            raise ChainError(f"run {str(run_info['id'])[:8]} has no token yet; call run.tokenize()")
        return cls(chain, bound["token"], bound["ledger"], account=bound.get("account"))

    @cached_property
    def _contract(self) -> Any:
        return token_contract(self.chain, self.address)

    @cached_property
    def _ledger_contract(self) -> Any:
        return ledger_contract(self.chain, self.ledger)

    def _books(self) -> Books:
        return read_books(self.chain, self._contract, self._ledger_contract, ClaimBook(self.chain.home, self.ledger))

    def _names(self) -> dict[str, str]:
        local = {account.address: account.name for account in self.chain.accounts()}
        return {UNASSIGNED: "(in the ledger)"} | local | ClaimBook(self.chain.home, self.ledger).load()[1]

    def shares(self) -> "pd.DataFrame":
        """Who owns how much: account, name, shares, percent, claimable_eth, claimed_eth; and exact wei as Python integers.

        Shares that wait in the ledger for their owner are counted as the owner's, and so is what they earned.
        """
        import pandas as pd

        books, names = self._books(), self._names()
        rows = []
        for account, holder in sorted(books.holders.items(), key=lambda item: (-item[1].shares, item[0])):
            rows.append(
                {
                    "account": account,
                    "name": names.get(account, ""),
                    "shares": float(Decimal(holder.shares) / WEI),
                    "percent": float(Decimal(100 * holder.shares) / books.supply) if books.supply else 0.0,
                    "claimable_eth": float(Decimal(holder.claimable) / WEI),
                    "claimed_eth": float(Decimal(holder.claimed) / WEI),
                    "shares_wei": holder.shares,
                    "claimable_wei": holder.claimable,
                    "claimed_wei": holder.claimed,
                }
            )
        columns = [
            "account",
            "name",
            "shares",
            "percent",
            "claimable_eth",
            "claimed_eth",
            "shares_wei",
            "claimable_wei",
            "claimed_wei",
        ]
        frame = pd.DataFrame(rows, columns=columns)
        wei = [column for column in columns if column.endswith("_wei")]
        return frame.astype(dict.fromkeys(wei, object))

    def pay(self, ether: int | float | str | Decimal, account: str | None = None) -> dict[str, Any]:
        """Pay revenue to all shares from an account: {transaction, block, account, wei, gas_used}. Raises ChainError."""
        payer = self._payer(account)
        wei = to_wei(ether)
        has = self.chain.balance(self.chain.account(payer, create=False).address)
        if wei > has:
            remedy = f"chain.fund({payer!r}, {ether}) tops it up" if self.chain.kind == "embedded" else "send ether to it first"
            raise ChainError(f"account {payer!r} has {Decimal(has) / WEI:.6f} ether and cannot pay {ether}; {remedy}")
        receipt = self.chain.transact(payer, to=self.address, data=self._contract.encode_abi("pay", args=[]), value=wei)
        return {
            "transaction": "0x" + bytes(receipt["transactionHash"]).hex(),
            "block": int(receipt["blockNumber"]),
            "account": payer,
            "wei": wei,
            "gas_used": int(receipt["gasUsed"]),
        }

    def claim(self, account: str | None = None) -> "pd.DataFrame":
        """Take shares that wait in the ledger, and revenue, for one account or for all of this home: account, name, wei, ether.

        An account that has earned nothing since its last claim is not in the table.
        """
        import pandas as pd

        local = [self.chain.account(account, create=False)] if account else self.chain.accounts()
        self._claim_shares({a.address for a in local}, self._payer(account))
        rows = []
        for holder in local:
            wei = int(self._contract.functions.claimableRevenue(holder.address).call())
            if wei:
                data = self._contract.encode_abi("claimRevenue", args=[holder.address])
                self.chain.transact(holder.name, to=self.address, data=data)
                rows.append({"account": holder.address, "name": holder.name, "wei": wei, "ether": float(Decimal(wei) / WEI)})
        return pd.DataFrame(rows, columns=["account", "name", "wei", "ether"]).astype({"wei": object})

    def _claim_shares(self, addresses: set[str], payer: str) -> None:
        waiting = [claim for claim in self._books().unclaimed if claim.account in addresses]
        for batch in batches([claim_step(self._ledger_contract, claim) for claim in waiting]):
            send_batch(self.chain, self.ledger, batch, payer)

    def _payer(self, account: str | None) -> str:
        name = account or self._account or "default"
        return self.chain.account(name, create=self.chain.kind == "embedded").name

    def status(self) -> dict[str, Any]:
        """The token in figures, amounts in wei: paid == claimed + claimable + dust, exactly.

        `dust_wei` are the fractions of a wei that belong to holders and cannot be paid out yet; they stay in the token.
        """
        books, ledger, token = self._books(), self._ledger_contract.functions, self._contract.functions
        return {
            "run": ledger.runId().call().hex(),
            "chain": self.chain.describe(),
            "profile": self.chain.profile,
            "token": self.address,
            "ledger": self.ledger,
            "name": token.name().call(),
            "symbol": token.symbol().call(),
            "attesters": ledger.attesters().call(),
            "quorum": ledger.minQuorum().call(),
            "challenge_window_s": ledger.challengeWindow().call(),
            "epochs_posted": ledger.nextEpoch().call(),
            "epochs_finalized": ledger.numFinalized().call(),
            "supply_wei": books.supply,
            "supply": float(Decimal(books.supply) / WEI),
            "unclaimed_shares_wei": books.unclaimed_shares,
            "holders": len(books.holders),
            "paid_wei": books.paid,
            "claimed_wei": books.claimed,
            "claimable_wei": books.claimable,
            "dust_wei": books.dust,
            "balance_wei": self.chain.balance(self.address),
        }

    def __repr__(self) -> str:
        return f"Token({self.address}, {self.chain!r})"

    def _repr_html_(self) -> str:
        where = facts("Token", [("token", self.address), ("ledger", self.ledger), ("chain", repr(self.chain))])
        try:
            status, shares = self.status(), self.shares()
        except Exception as error:
            # A look at a cell's last line must not fail with the network, and web3's providers raise whatever their libraries do.
            return where + paragraph(f"the chain cannot be asked now ({type(error).__name__}); token.status() says why")
        summary = (
            f"{status['name']} ({status['symbol']}): {status['supply']:,.0f} shares of {status['epochs_finalized']} epochs, "
            f"{status['paid_wei'] / WEI:g} ETH paid, {status['dust_wei']} wei of dust"
        )
        rows = [
            (
                row["name"] or row["account"],
                f"{row['shares']:,.2f}",
                f"{row['percent']:.2f} %",
                f"{row['claimable_eth']:.6f}",
                f"{row['claimed_eth']:.6f}",
            )
            for row in shares.to_dict("records")
        ]
        heads = ("owner", "shares", "percent", "claimable ETH", "claimed ETH")
        return paragraph(summary) + where + table("Owners", heads, rows)
