"""Chains for these tests: the daemon's methods in this process (fast), or one real daemon for the session; and signed runs."""

import hashlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pluralis_lab.chain import Account, Chain
from pluralis_lab.chain.contract_files import load_artifact
from pluralis_lab.chain.deploy import ledger_contract, token_contract
from pluralis_lab.chain.methods import Methods
from pluralis_lab.chain.place import ChainPlace
from pluralis_lab.chain.provider import DaemonConnection
from pluralis_lab.contributions import merkle
from pluralis_lab.contributions.attestation import epoch_typed_data

EMISSION_WEI = 10**24


class InProcess(DaemonConnection):
    """The daemon's methods without its process and socket; every request still passes through JSON."""

    def __init__(self, place: ChainPlace) -> None:
        super().__init__(place)
        place.make()
        self.methods = Methods(place, on_shutdown=lambda: None)

    def request(self, method: str, params: Any) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return json.loads(json.dumps(self.methods.answer(json.dumps(body, default=lambda b: "0x" + b.hex()).encode())))


class SignedRun:
    """A run that was launched on a chain: run.json, and the closed epochs that its attesters signed."""

    def __init__(self, chain: Chain, num_attesters: int = 3) -> None:
        self.chain = chain
        self.id = secrets.token_hex(32)
        self.accounts = [chain.account(f"lab-{letter}") for letter in "abcdefg"[:num_attesters]]
        self.plan = chain.plan(self.id)
        people = [{"name": account.name, "address": account.address} for account in self.accounts]
        self.info: dict[str, Any] = {
            "id": self.id,
            "participants": people,
            "attesters": people,
            "chain": chain.describe() | self.plan,
        }
        self.closes: list[dict[str, Any]] = []

    def sign(self, close: dict[str, Any], accounts: list[Account] | None = None, **instead: Any) -> None:
        """Put the attestations of `accounts` on a close; `instead` replaces what they sign."""
        signed = {
            "run_id": self.id,
            "epoch": close["epoch"],
            "attempt": close["attempt"],
            "root": close["root"],
            "data_hash": close["data_hash"],
            "model_hash": close["model_hash"],
            "chain_id": self.chain.chain_id,
            "verifying_contract": self.plan["ledger"],
        } | instead
        typed_data = epoch_typed_data(**signed)
        close["attestations"] = [
            {"attester": a.name, "address": a.address, "signature": self.chain.sign_typed_data(a.name, typed_data)}
            for a in (self.accounts if accounts is None else accounts)
        ]

    def close(self, amounts: dict[str, int] | None = None, **signing: Any) -> dict[str, Any]:
        """Close the next epoch: `amounts` in token wei by address; default: the emission in equal parts, the rest to the last."""
        epoch = len(self.closes)
        if amounts is None:
            part = EMISSION_WEI // len(self.accounts)
            amounts = {account.address: part for account in self.accounts}
            amounts[self.accounts[-1].address] += EMISSION_WEI - part * len(self.accounts)
        data_hash, model_hash = (hashlib.sha256(f"{kind} {epoch}".encode()).hexdigest() for kind in ("data", "model"))
        rows = [[index, address, str(amounts[address])] for index, address in enumerate(sorted(amounts))]
        leaves = [merkle.leaf(self.id, epoch, i, address, int(wei), data_hash) for i, address, wei in rows]
        close: dict[str, Any] = {
            "epoch": epoch,
            "run": self.id,
            "attempt": 0,
            "statements": [],
            "data_hash": data_hash,
            "model_hash": model_hash,
            "root": merkle.root(leaves).hex(),
            "amounts": rows,
            "shares": {},
        }
        self.sign(close, **signing)
        self.closes.append(close)
        return close

    def tokenize(self, **options: Any) -> Any:
        return self.chain.tokenize(self.info, EMISSION_WEI, self.closes, self.accounts[0].name, **options)

    def contracts(self, **instead: Any) -> SimpleNamespace:
        """Deploy ledger and token, with constructor arguments of one's own, and return both with a way to call them."""
        arguments = {
            "run": bytes.fromhex(self.id),
            "token": self.plan["token"],
            "attesters": [account.address for account in self.accounts],
            "emission": EMISSION_WEI,
            "halving": 1000,
            "window": 0,
        } | instead
        chain = self.chain
        chain.transact(self.accounts[0].name, to=self.plan["deployer"], value=10**18)
        for name, given in (
            ("ContributionLedger", list(arguments.values())),
            ("ModelToken", ["A model", "MODEL", self.plan["ledger"]]),
        ):
            artifact = load_artifact(name)
            factory = chain.web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
            chain.transact(self.id, to=None, data=factory.constructor(*given).data_in_transaction, kind="deployer")
        ledger, token = ledger_contract(chain, self.plan["ledger"]), token_contract(chain, self.plan["token"])

        def send(contract: Any, function: str, *given: Any, account: str = "lab-a", value: int = 0) -> dict[str, Any]:
            data = contract.encode_abi(function, args=list(given))
            return chain.transact(account, to=contract.address, data=data, value=value)

        def post(close: dict[str, Any], account: str = "lab-a") -> dict[str, Any]:
            signatures = sorted((int(a["address"], 16), bytes.fromhex(a["signature"][2:])) for a in close["attestations"])
            hashes = [bytes.fromhex(close[key]) for key in ("root", "data_hash", "model_hash")]
            arguments = (close["epoch"], close["attempt"], *hashes, [s for _, s in signatures])
            return send(ledger, "postEpoch", *arguments, account=account)

        def claim(close: dict[str, Any], place: int, relay: str = "lab-a", **instead: Any) -> dict[str, Any]:
            rows = [(i, address, int(wei)) for i, address, wei in close["amounts"]]
            leaves = [merkle.leaf(self.id, close["epoch"], *row, close["data_hash"]) for row in rows]
            index, address, amount = rows[place]
            given = {"epoch": close["epoch"], "index": index, "account": address, "amount": amount} | instead
            return send(ledger, "claim", *given.values(), merkle.proof(leaves, place), account=relay)

        return SimpleNamespace(ledger=ledger, token=token, send=send, post=post, claim=claim)


@pytest.fixture(scope="session")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """An embedded chain in this process; its accounts lab-a to lab-g have 100,000 ETH."""
    home = tmp_path_factory.mktemp("home")
    chain = Chain.embedded(home)
    connection = InProcess(ChainPlace(home))
    chain._daemon = connection
    for letter in "abcdefg":
        chain.account(f"lab-{letter}")
        chain.fund(f"lab-{letter}", 100_000)
    yield chain
    connection.methods.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Chain]:
    """A chain in this process for one test alone, which may turn its clock."""
    chain = Chain.embedded(tmp_path)
    connection = InProcess(ChainPlace(tmp_path))
    chain._daemon = connection
    yield chain
    connection.methods.close()


@pytest.fixture(scope="session")
def signed_run() -> Callable[..., SignedRun]:
    """`signed_run(chain, num_attesters=3)`: a run bound to a chain."""
    return SignedRun


@pytest.fixture
def run(direct: Chain) -> SignedRun:
    """A run of three participants, who are its attesters, on the chain in this process."""
    return SignedRun(direct)


@pytest.fixture(scope="session")
def daemon_home() -> Iterator[Path]:
    """A home with a real daemon, for the whole session; the path is short, as a socket's must be."""
    home = Path(tempfile.mkdtemp(prefix="pl-chain-", dir="/tmp"))
    yield home
    Chain.embedded(home).stop()
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def chain(daemon_home: Path) -> Chain:
    """The embedded chain behind the session's daemon."""
    return Chain.embedded(daemon_home)
