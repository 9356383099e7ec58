"""`Chain`: the chain a run is bound to, embedded or behind a URL, and its accounts. Keys stay in the home's daemon."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluralis_lab.chain.place import ChainPlace, home_folder
from pluralis_lab.chain.profiles import PROFILES
from pluralis_lab.chain.provider import DaemonConnection, http_provider, stop_daemon, web3_provider
from pluralis_lab.chain.reverts import as_chain_error, decode_revert
from pluralis_lab.chain.sessions import Sessions, passphrase
from pluralis_lab.chain.shown import chain_html, public_url
from pluralis_lab.errors import ChainError
from pluralis_lab.foreign_json import kept_recursion_limit
from pluralis_lab.markup import facts

if TYPE_CHECKING:
    from web3 import Web3

    from pluralis_lab.chain.token import Token

WEI = 10**18
TRANSACTION_GAS_CAP = 16_777_216  # EIP-7825
RECEIPT_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Account:
    """An account of this home by its name; `address` is EIP-55 checksummed. The key never leaves the chain daemon."""

    name: str
    address: str

    def _repr_html_(self) -> str:
        return facts("Account", [("name", self.name), ("address", self.address)])


class Chain:
    """An Ethereum chain, as a run uses it.

    ``Chain.embedded()`` needs nothing else installed. ``Chain(url)`` is any JSON-RPC node; its accounts are behind a passphrase,
    which is asked for once a session or read from $PLURALIS_LAB_PASSPHRASE.

    Parameters
    ----------
    url : JSON-RPC endpoint, http or https
    profile : "lab" (no waiting) or "public" (days); the waiting times that this chain's ledgers are deployed with
    home : where the accounts are; default $PLURALIS_LAB_HOME or ~/.pluralis_lab

    Example
    -------
    >>> chain = Chain.embedded()
    >>> chain.account("lab-a").address
    """

    def __init__(self, url: str | None, *, profile: str = "lab", home: Path | str | None = None) -> None:
        if url is not None and not url.startswith(("http://", "https://")):
            shown = public_url(url if "://" in url else f"//{url}")  # a key may be in it whatever its form
            raise ChainError(f"chain url {shown!r}; use the http or https endpoint of a JSON-RPC node")
        if profile not in PROFILES:
            raise ChainError(f"chain profile {profile!r}; use one of {', '.join(PROFILES)}")
        self.url, self.profile = url, profile
        self.home = home_folder(home)
        self._daemon = DaemonConnection(ChainPlace(self.home))
        self._sessions = Sessions(lambda: self._daemon, self.home)
        self._web3: Web3 | None = None
        self._chain_id: int | None = None

    @classmethod
    def embedded(cls, home: Path | str | None = None) -> "Chain":
        """The embedded chain of `home`; its daemon is started when the first call needs it."""
        return cls(None, home=home)

    @classmethod
    def from_description(cls, description: dict[str, Any], home: Path | str | None = None) -> "Chain":
        """The chain of a run.json. Raises ChainError when the node there is another chain now."""
        if description.get("kind") not in ("embedded", "url"):
            raise ChainError(f"the run was launched with chain kind {description.get('kind')!r}; it is bound to no chain")
        chain = cls(description.get("url"), profile=description.get("profile", "lab"), home=home)
        chain.require_id(int(description["chain_id"]))
        return chain

    def describe(self) -> dict[str, Any]:
        """What run.json keeps of this chain: kind, url, chain_id, profile."""
        return {"kind": self.kind, "url": self.url, "chain_id": self.chain_id, "profile": self.profile}

    @property
    def kind(self) -> str:
        """ "embedded" or "url"; also the kind of this chain's accounts."""
        return "embedded" if self.url is None else "url"

    @property
    def chain_id(self) -> int:
        """The chain id, as the node says."""
        if self._chain_id is None:
            self._chain_id = (
                int(self._daemon.call("eth_chainId"), 16) if self.url is None else self._ask(lambda: self.web3.eth.chain_id)
            )
        return self._chain_id

    def require_id(self, chain_id: int) -> None:
        """Raise ChainError unless this is chain `chain_id`: signatures and contracts of a run are for one chain only."""
        if self.chain_id != chain_id:
            where = public_url(self.url) if self.url else f"the embedded chain of {self.home}"
            raise ChainError(
                f"{where} is chain {self.chain_id}, but the run was launched with chain {chain_id}; a run never changes its chain"
            )

    @property
    def web3(self) -> "Web3":
        """A web3 client of this chain, loaded on first use; it holds no accounts."""
        if self._web3 is None:
            with kept_recursion_limit():
                from web3 import Web3

            self._web3 = Web3(web3_provider(self._daemon) if self.url is None else http_provider(self.url))
        return self._web3

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except Exception as error:  # every provider raises its own kinds
            raise as_chain_error(error) from error

    # Accounts

    def account(self, name: str, create: bool = True) -> Account:
        """The account `name` of this chain, made on first use; on the embedded chain it starts with 100 ETH.

        Raises ChainError when there is none and `create` is false, or for a name that is no file name.
        """
        address = self._daemon.call("pluralis_account", self.kind, name, False)
        if address is None and create:
            secret = None if self.kind == "embedded" else passphrase(f"New passphrase for account {name!r}: ", repeat=True)
            address = self._daemon.call("pluralis_account", self.kind, name, True, secret)
        if address is None:
            raise ChainError(f"no account {name!r} in {self.home}; chain.account({name!r}) makes it")
        return Account(name, address)

    def accounts(self) -> list[Account]:
        """All accounts of this home for this kind of chain."""
        return [Account(name, address) for name, address in self._daemon.call("pluralis_accounts", self.kind).items()]

    def balance(self, address: str) -> int:
        """Wei of an account."""
        return int(self._ask(lambda: self.web3.eth.get_balance(address)))  # type: ignore[arg-type]

    def fund(self, name: str, ether: int | float | str | Decimal) -> None:
        """Bring an embedded account up to `ether` from the embedded chain's faucet."""
        if self.kind != "embedded":
            raise ChainError(
                f"there is no faucet behind {public_url(self.url or '')}; "
                f"send ether to {self.account(name, create=False).address} yourself"
            )
        self._daemon.call("pluralis_fund", name, hex(to_wei(ether)))

    def sign_typed_data(self, name: str, typed_data: dict[str, Any]) -> str:
        """Sign an EIP-712 message with the account `name`: 65 bytes as 0x-hex (r, s, v with v 27 or 28). Raises ChainError."""
        return str(self._signed("pluralis_signTypedData", self.kind, name, typed_data))

    def delegate(self, names: Iterable[str], run_id: str) -> dict[str, str]:
        """Unlock accounts for the process of a run: name -> a token that signs epochs of this run and nothing else.

        Empty for the embedded chain, whose accounts need no unlocking. Raises ChainError when a passphrase is wrong.
        """
        return {} if self.kind == "embedded" else self._sessions.delegate(names, run_id)

    def use(self, granted: dict[str, str]) -> "Chain":
        """Sign with these tokens of `delegate` from now on, and never ask for a passphrase: for a process without a terminal."""
        self._sessions = Sessions(lambda: self._daemon, self.home, granted)
        return self

    def plan(self, run_id: str) -> dict[str, str]:
        """The addresses of a run's contracts, known before they are deployed: deployer (the run's own), ledger, token.

        run_id : 64 hexadecimal characters
        """
        plan: dict[str, str] = self._daemon.call("pluralis_plan", run_id)
        return plan

    def _signed(self, method: str, kind: str, name: str, body: dict[str, Any]) -> Any:
        if kind != "url":
            return self._daemon.call(method, kind, name, body)
        return self._sessions.signed(method, name, body)

    # Transactions

    def transact(
        self, name: str, *, to: str | None, data: str = "0x", value: int = 0, gas: int | None = None, kind: str | None = None
    ) -> dict[str, Any]:
        """Send a transaction from an account and return its receipt once it is mined.

        to : None creates a contract; value : wei; gas : a limit, else estimated
        kind : of the account, when it is not the chain's
        Raises ContractRefusedError with the contract's own error, if the node can tell before anything is mined; else ChainError.
        """
        transaction: dict[str, Any] = {"data": data, "value": hex(value)} | ({"to": to} if to else {})
        if gas is not None:
            if gas > TRANSACTION_GAS_CAP:
                raise ChainError(f"gas={gas} in one transaction; EIP-7825 allows {TRANSACTION_GAS_CAP}")
            transaction["gas"] = hex(gas)
        if self.url is None:
            transaction_hash = self._ask(
                lambda: self._daemon.call("pluralis_sendTransaction", kind or self.kind, name, transaction)
            )
        else:
            transaction_hash = self._send_to_url(kind or self.kind, name, transaction)
        receipt = self._ask(
            lambda: self.web3.eth.wait_for_transaction_receipt(transaction_hash, timeout=RECEIPT_TIMEOUT_S, poll_latency=0.2)
        )
        if receipt["status"] != 1:
            raise self._why_failed(receipt)
        return dict(receipt)

    def _send_to_url(self, kind: str, name: str, transaction: dict[str, Any]) -> Any:
        eth = self.web3.eth
        sender = self._daemon.call("pluralis_account", kind, name, False)
        if sender is None:
            raise ChainError(f"no account {name!r} in {self.home}; chain.account({name!r}) makes it")
        message = transaction | {"from": sender}
        # Estimated even where the caller gave a limit: a refusal shows here, before anything is paid for. A quarter more than
        # the estimate, because nodes underestimate what a vote checkpoint costs in the next block.
        given = int(message.pop("gas", "0x0"), 16)
        estimate = int(self._ask(lambda: eth.estimate_gas(message)))  # type: ignore[arg-type]
        message["gas"] = hex(min(max(given, estimate + estimate // 4), TRANSACTION_GAS_CAP))
        tip = int(self._ask(lambda: eth.max_priority_fee))
        base = int(self._ask(lambda: eth.get_block("latest").get("baseFeePerGas", 0)))
        message |= {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": self._ask(lambda: eth.get_transaction_count(sender, "pending")),
            "maxFeePerGas": hex(2 * base + tip),
            "maxPriorityFeePerGas": hex(tip),
        }
        raw = self._signed("pluralis_signTransaction", kind, name, message)
        return self._ask(lambda: eth.send_raw_transaction(raw))

    def _why_failed(self, receipt: Any) -> ChainError:
        sent = self.web3.eth.get_transaction(receipt["transactionHash"])
        again = {"from": sent["from"], "to": sent.get("to"), "data": sent["input"], "value": sent["value"], "gas": sent["gas"]}
        try:
            self.web3.eth.call({k: v for k, v in again.items() if v is not None}, receipt["blockNumber"] - 1)  # type: ignore[arg-type]
        except Exception as error:
            return as_chain_error(error)
        return decode_revert(b"")

    def now(self) -> int:
        """Unix seconds of the newest block; on the embedded chain, which has a block whenever it is needed, the wall clock."""
        return int(time.time()) if self.url is None else int(self._ask(lambda: self.web3.eth.get_block("latest")["timestamp"]))

    # Runs

    def tokenize(
        self,
        run_info: dict[str, Any],
        emission_wei0: int,
        closes: Iterable[dict[str, Any]],
        account: str,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> "Token":
        """Deploy a run's contracts, post its signed epochs, finalise them and hand out all shares; again and again, safely.

        run_info : run.json; emission_wei0 : token wei of epoch 0; closes : the lines of closes.jsonl
        account : who pays the gas; progress : called with (what is done now, steps done, steps in all)
        What is already on the chain is skipped, so a call that was cut off is simply made again. Raises ChainError.
        """
        from pluralis_lab.chain.tokenize import tokenize

        return tokenize(self, run_info, emission_wei0, list(closes), account, progress)

    def close(self) -> None:
        """Close this object's connection; the daemon goes on."""
        self._sessions.close()
        self._daemon.close()

    def stop(self) -> bool:
        """End this home's chain daemon, which any later call starts again; False when none was running."""
        self._daemon.close()
        return stop_daemon(ChainPlace(self.home))

    def __repr__(self) -> str:
        return f"Chain({public_url(self.url)!r})" if self.url else f"Chain.embedded({str(self.home)!r})"

    def _repr_html_(self) -> str:
        return chain_html(self)


def to_wei(ether: int | float | str | Decimal) -> int:
    """Whole wei of an amount of ether; a float is taken as it prints. Raises ChainError below 0 and for fractions of a wei."""
    try:
        with localcontext(prec=100):
            wei = Decimal(str(ether)) * WEI
            whole = int(wei)
    except (ArithmeticError, ValueError):
        raise ChainError(f"ether={ether!r} is not a number") from None
    if whole != wei or whole < 0:
        raise ChainError(f"ether={ether!r}; use an amount of at least 0 in whole wei (18 decimals)")
    return whole
