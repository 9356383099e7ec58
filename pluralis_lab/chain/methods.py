"""What the chain daemon answers: the eth_* methods of its node, and pluralis_* for accounts, signatures and the faucet."""

import inspect
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from eth_account.signers.local import LocalAccount

from pluralis_lab.chain.keystore import FAUCET, AccountLockedError, Keystore, sign_typed_data
from pluralis_lab.chain.node import (
    EMBEDDED_IDS,
    PRIORITY_FEE_WEI,
    TRANSACTION_GAS_CAP,
    ExecutionRevertedError,
    TransactionRefusedError,
    open_node,
)
from pluralis_lab.chain.place import ChainPlace
from pluralis_lab.chain.provider import CODE_LOCKED
from pluralis_lab.chain.rpc import EthereumMethods
from pluralis_lab.chain.rpc_values import InvalidParamsError, contract_address, to_address, to_hex, to_int
from pluralis_lab.contributions.attestation import epoch_typed_data
from pluralis_lab.errors import ChainError, EvidenceError, PluralisError
from pluralis_lab.foreign_json import parse_foreign

GIFT_WEI = 100 * 10**18  # what a new embedded account has
_FAUCET = ("embedded", FAUCET)
_log = logging.getLogger("pluralis_lab.chain.daemon")


class Methods:
    """The daemon's whole method table. `answer` never raises; private keys are in no answer and no log."""

    def __init__(self, place: ChainPlace, *, on_shutdown: Callable[[], None]) -> None:
        self._place, self._on_shutdown = place, on_shutdown
        self._begun = time.time()
        self._lock = threading.RLock()  # one signer at a time, so that nonces follow each other
        self._keystore = Keystore(place.home)
        faucet = self._keystore.find(*_FAUCET) or self._keystore.create(*_FAUCET)
        self._node = open_node(place.database, to_address(faucet))
        os.chmod(place.database, 0o600)
        self._table = EthereumMethods(self._node).table | {
            "pluralis_version": self.version,
            "pluralis_accounts": lambda kind: {n: a for n, a in self._keystore.accounts(kind).items() if (kind, n) != _FAUCET},
            "pluralis_account": self.account,
            "pluralis_unlock": self.unlock,
            "pluralis_delegate": self.delegate,
            "pluralis_plan": self.plan,
            "pluralis_signTypedData": self.sign_typed_data,
            "pluralis_signTransaction": self.sign_transaction,
            "pluralis_sendTransaction": self.send_transaction,
            "pluralis_fund": self.fund,
            "pluralis_shutdown": self.shutdown,
        }

    def close(self) -> None:
        """Finish what is being mined and close the database."""
        with self._lock:
            self._node.close()

    def answer(self, line: bytes) -> dict[str, Any]:
        """The JSON-RPC 2.0 answer to one request line."""
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
        try:
            request = parse_foreign(line)
            reply["id"], method, params = request.get("id"), request["method"], request.get("params", [])
            if not isinstance(params, (list, tuple)):
                raise InvalidParamsError("params must be an array")
        except (ValueError, KeyError, AttributeError) as error:
            return reply | {"error": {"code": -32600, "message": f"not a JSON-RPC request: {error!r}"}}
        function = self._table.get(method) if isinstance(method, str) else None
        if function is None:
            return reply | {"error": {"code": -32601, "message": f"the embedded chain has no method {method!r:.80}"}}
        try:
            inspect.signature(function).bind(*params)
        except TypeError as error:
            return reply | {"error": {"code": -32602, "message": f"{method}: {error}"}}
        try:
            return reply | {"result": function(*params)}
        except ExecutionRevertedError as error:
            return reply | {"error": {"code": 3, "message": str(error), "data": to_hex(error.data)}}
        except InvalidParamsError as error:
            return reply | {"error": {"code": -32602, "message": str(error)}}
        except AccountLockedError as error:
            return reply | {"error": {"code": CODE_LOCKED, "message": str(error)}}
        except (TransactionRefusedError, PluralisError) as error:
            return reply | {"error": {"code": -32000, "message": str(error)}}
        except Exception as error:
            _log.exception("%s failed", method)
            return reply | {"error": {"code": -32603, "message": f"{type(error).__name__} in {method}; see {self._place.log}"}}

    def version(self) -> dict[str, Any]:
        """Who answers here."""
        return {
            "pid": os.getpid(),
            "home": str(self._place.home),
            "chain_id": self._node.chain_id,
            "started": self._begun,
            "block": self._node.head().block_number,
        }

    def account(self, kind: str, name: str, create: bool, passphrase: str | None = None) -> str | None:
        """An account's address; with `create` it is made, and funded on the embedded chain, when there is none. Else null."""
        with self._lock:
            if (kind, name) == _FAUCET:
                raise ChainError("the name 'faucet' is taken by the embedded chain's own account; use another")
            address = self._keystore.find(kind, name)
            if address is None and create:
                address = self._keystore.create(kind, name, passphrase)
                if kind == "embedded":
                    self.fund(name, GIFT_WEI)
            return address

    def unlock(self, name: str, passphrase: str) -> str:
        """A session token for an account behind a passphrase."""
        with self._lock:
            return self._keystore.unlock(name, passphrase)

    def delegate(self, session: str, run_id: str) -> str:
        """A token for a run's own process: it signs that run's epochs and nothing else."""
        with self._lock:
            return self._keystore.delegate(session, _checked_run_id(run_id))

    def plan(self, run_id: str) -> dict[str, str]:
        """A run's own deployer, made on first use, and the addresses its first two transactions create."""
        _checked_run_id(run_id)
        with self._lock:
            deployer = self._keystore.find("deployer", run_id) or self._keystore.create("deployer", run_id)
        sender = to_address(deployer)
        return {"deployer": deployer, "ledger": contract_address(sender, 0), "token": contract_address(sender, 1)}

    def sign_typed_data(self, kind: str, name: str, typed_data: dict[str, Any], session: str | None = None) -> str:
        """An EIP-712 signature. An embedded account signs for the embedded chain only, but to join a run on another home's."""
        with self._lock:
            chain_id = (typed_data.get("domain") or {}).get("chainId")
            if kind == "embedded" and typed_data.get("primaryType") == "Authorisation" and to_int(chain_id) in EMBEDDED_IDS:
                chain_id = self._node.chain_id  # a worker's key for somebody else's laboratory: it moves nothing on any chain
            signer = self._signer(kind, name, session, chain_id, run=_run_of_epoch(typed_data))
            return sign_typed_data(signer, typed_data)

    def sign_transaction(self, kind: str, name: str, transaction: dict[str, Any], session: str | None = None) -> str:
        """A complete transaction, signed, for its caller to send to another chain."""
        with self._lock:
            signer = self._signer(kind, name, session, transaction.get("chainId"))
            return to_hex(bytes(signer.sign_transaction(_with_numbers(transaction)).raw_transaction))

    def _signer(self, kind: str, name: str, session: str | None, chain_id: Any, run: str | None = None) -> LocalAccount:
        if kind == "embedded" and to_int(chain_id) != self._node.chain_id:
            raise ChainError(
                f"account {name!r} belongs to the embedded chain {self._node.chain_id} and signs nothing for chain {chain_id}; "
                "another chain needs an account of its own"
            )
        return self._keystore.signer(kind, name, session, run=run)

    def send_transaction(self, kind: str, name: str, transaction: dict[str, Any]) -> str:
        """Fill in, sign and mine a transaction of an embedded account or a deployer; its hash. One that reverts is not mined."""
        if kind == "url" or (kind, name) == _FAUCET:
            raise ChainError(f"account {name!r} of kind {kind!r} does not send on the embedded chain")
        with self._lock:
            return self._send(self._keystore.signer(kind, name), transaction)

    def _send(self, signer: LocalAccount, transaction: dict[str, Any]) -> str:
        header = self._node.pending_header()
        filled = {
            "type": 2,
            "chainId": self._node.chain_id,
            "nonce": self._node.state().get_nonce(to_address(signer.address)),
            "value": to_int(transaction.get("value", 0)),
            "data": transaction.get("data", "0x"),
            "gas": to_int(transaction.get("gas", TRANSACTION_GAS_CAP)),
            "maxFeePerGas": 2 * header.base_fee_per_gas + PRIORITY_FEE_WEI,
            "maxPriorityFeePerGas": PRIORITY_FEE_WEI,
        }
        if transaction.get("to"):
            filled["to"] = transaction["to"]
        if filled["gas"] > TRANSACTION_GAS_CAP:
            raise TransactionRefusedError(f"{filled['gas']} gas in one transaction; the cap of EIP-7825 is {TRANSACTION_GAS_CAP}")
        raw = bytes(signer.sign_transaction(filled).raw_transaction)
        return to_hex(self._node.send(raw, keep_reverted=False))

    def fund(self, name: str, wei: Any) -> str | None:
        """Bring an embedded account up to `wei` from the faucet: the transaction's hash, or null when it had as much."""
        with self._lock:
            address = self._keystore.find("embedded", name)
            if address is None:
                raise ChainError(f"no account {name!r} in this home; the faucet pays only its embedded accounts")
            missing = to_int(wei) - self._node.state().get_balance(to_address(address))
            if missing <= 0:
                return None
            faucet = self._keystore.signer(*_FAUCET)
            return self._send(faucet, {"to": address, "value": missing, "gas": 21_000})

    def shutdown(self) -> bool:
        """End the daemon once this is answered."""
        self._on_shutdown()
        return True


def _checked_run_id(run_id: str) -> str:
    if len(run_id) != 64 or set(run_id) - set("0123456789abcdef"):
        raise ChainError(f"run id {run_id!r:.80} is not 64 hexadecimal characters")
    return run_id


def _run_of_epoch(typed_data: dict[str, Any]) -> str | None:
    """The run whose epoch this message attests, None when it is anything else, or only looks like one."""
    message, domain = typed_data.get("message") or {}, typed_data.get("domain") or {}
    try:
        run_id, root, data_hash, model_hash = (message[field] for field in ("runId", "root", "dataHash", "modelHash"))
        place = (domain["chainId"], domain["verifyingContract"])
        epoch = epoch_typed_data(run_id, message["epoch"], message["attempt"], root, data_hash, model_hash, *place)
    except (KeyError, TypeError, EvidenceError):
        return None
    return str(epoch["message"]["runId"])[2:] if epoch == typed_data else None


def _with_numbers(transaction: dict[str, Any]) -> dict[str, Any]:
    numbers = ("type", "chainId", "nonce", "value", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "gasPrice")
    return {key: to_int(value) if key in numbers else value for key, value in transaction.items()}
