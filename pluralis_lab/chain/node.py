"""The embedded chain itself: py-evm (Prague) over SQLite, a block for each transaction, clocked by the wall."""

import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth.abc import BlockHeaderAPI, ComputationAPI
from eth.chains.base import MiningChain
from eth.constants import POST_MERGE_DIFFICULTY, POST_MERGE_MIX_HASH, POST_MERGE_NONCE, ZERO_ADDRESS
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert, VMError
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_utils.exceptions import ValidationError

from pluralis_lab.chain.database import BlockDatabase
from pluralis_lab.errors import ChainError

TRANSACTION_GAS_CAP = 16_777_216  # EIP-7825; Prague does not enforce it yet, the next fork does
BLOCK_GAS_LIMIT = 30_000_000
PRIORITY_FEE_WEI = 10**9
FAUCET_SUPPLY_WEI = 10**9 * 10**18
_CHAIN_ID_KEY = b"pluralis_lab:chain-id"
EMBEDDED_IDS = range(2**40, 2**41)
"""Of embedded chains, drawn once a home: far above those of chains that have a value."""


class ExecutionRevertedError(Exception):
    """A contract refused a call; `data` is what it returned: a selector and the error's arguments, or nothing."""

    def __init__(self, data: bytes, reason: str = "execution reverted") -> None:
        super().__init__(reason)
        self.data = data


class TransactionRefusedError(ValueError):
    """A transaction is malformed, badly signed, out of order or not covered by its sender's balance."""


class _ClockedVM(PragueVM):
    """Prague, but a block may carry its parent's second, as on rollups: else quick blocks would run ahead of the wall clock."""

    @classmethod
    def validate_header(cls, header: BlockHeaderAPI, parent_header: BlockHeaderAPI) -> None:
        if parent_header is not None and header.timestamp == parent_header.timestamp:
            header = header.copy(timestamp=parent_header.timestamp + 1)
        super().validate_header(header, parent_header)


@dataclass(frozen=True)
class Mined:
    """A transaction where it stands in the chain. `gas_used` is its own, not the block's sum."""

    block: Any
    index: int
    transaction: Any
    receipt: Any
    gas_used: int
    first_log_index: int


class Node:
    """One embedded chain in `path`, created on first use with all ether at `faucet`.

    Every method is safe to call from any thread. The chain id is random, drawn at creation, so that two homes never share one.
    """

    def __init__(self, path: Path, faucet: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._database = BlockDatabase(path)
        is_new = _CHAIN_ID_KEY not in self._database
        self.chain_id = (
            EMBEDDED_IDS.start + secrets.randbelow(len(EMBEDDED_IDS))
            if is_new
            else int.from_bytes(self._database[_CHAIN_ID_KEY], "big")
        )
        self._chain_class: type[MiningChain] = type(
            "EmbeddedChain", (MiningChain,), {"chain_id": self.chain_id, "vm_configuration": ((0, _ClockedVM),)}
        )
        self._base = AtomicDB(self._database)
        if is_new:
            with self._database.transaction():
                self._database[_CHAIN_ID_KEY] = self.chain_id.to_bytes(8, "big")
                self._chain_class.from_genesis(self._base, self._genesis(), self._genesis_state(faucet))
        self._chain: Any = self._chain_class(self._base)  # py-evm's abstract types are narrower than what it takes and gives

    def _genesis(self) -> dict[str, Any]:
        return {
            "coinbase": ZERO_ADDRESS,
            "difficulty": POST_MERGE_DIFFICULTY,
            "extra_data": b"",
            "gas_limit": BLOCK_GAS_LIMIT,
            "mix_hash": POST_MERGE_MIX_HASH,
            "nonce": POST_MERGE_NONCE,
            "timestamp": int(self._clock()),
        }

    @staticmethod
    def _genesis_state(faucet: bytes) -> dict[Any, Any]:
        return {faucet: {"balance": FAUCET_SUPPLY_WEI, "nonce": 0, "code": b"", "storage": {}}}

    def close(self) -> None:
        """Finish the block that is being made and close the database; the node cannot be used afterwards."""
        with self._lock:
            self._database.close()

    # Blocks

    def head(self) -> Any:
        """The newest block's header."""
        with self._lock:
            return self._chain.get_canonical_head()

    def pending_header(self) -> Any:
        """The header the next block would have now: the wall clock's second, never before the head's."""
        with self._lock:
            head = self._chain.get_canonical_head()
            header = self._chain.create_header_from_parent(head, gas_limit=head.gas_limit)
            return header.copy(timestamp=max(int(self._clock()), head.timestamp))

    def block(self, number: int) -> Any:
        """Block `number`. Raises KeyError when there is none yet."""
        with self._lock:
            if not 0 <= number <= self.head().block_number:
                raise KeyError(number)
            return self._chain.get_canonical_block_by_number(number)

    def block_by_hash(self, block_hash: bytes) -> Any:
        """The canonical block with this hash. Raises eth.exceptions.HeaderNotFound."""
        with self._lock:
            return self._chain.get_block_by_hash(block_hash)

    def mined(self, block: Any) -> list[Mined]:
        """All transactions of `block` with their receipts."""
        with self._lock:
            found, before, num_logs = [], 0, 0
            for index, (transaction, receipt) in enumerate(
                zip(block.transactions, block.get_receipts(self._chain.chaindb), strict=True)
            ):
                found.append(Mined(block, index, transaction, receipt, receipt.gas_used - before, num_logs))
                before, num_logs = receipt.gas_used, num_logs + len(receipt.logs)
            return found

    def transaction(self, transaction_hash: bytes) -> Mined:
        """A mined transaction by its hash. Raises eth.exceptions.TransactionNotFound."""
        with self._lock:
            number, index = self._chain.get_canonical_transaction_index(transaction_hash)
            mined: Mined = self.mined(self.block(number))[index]
            return mined

    # State

    def state(self, header: Any = None) -> Any:
        """The state after `header`, or after the head: `get_balance`, `get_nonce`, `get_code`, `get_storage`."""
        with self._lock:
            return self._chain.get_vm(self.pending_header() if header is None else header).state

    def call(self, message: dict[str, Any], header: Any = None) -> tuple[bytes, int]:
        """Run a message without keeping its effects, free of charge: (what it returned, gas it used before refunds).

        `message` has from, to (b"" creates), data, value, gas. `header`: a mined block whose state to use; None: now.
        Raises ExecutionRevertedError when the contract refused.
        """
        with self._lock:
            vm = self._chain.get_vm(self.pending_header() if header is None else header)
            state = vm.state
            unsigned = vm.get_transaction_builder().new_unsigned_dynamic_fee_transaction(
                chain_id=self.chain_id,
                nonce=state.get_nonce(message["from"]),
                max_priority_fee_per_gas=0,
                max_fee_per_gas=vm.get_header().base_fee_per_gas,
                gas=message["gas"],
                to=message["to"],
                value=message["value"],
                data=message["data"],
                access_list=(),
            )
            snapshot = state.snapshot()
            try:
                # The sender need not afford the gas of a call: lend it for as long as the call takes.
                lent = message["gas"] * vm.get_header().base_fee_per_gas
                state.set_balance(message["from"], state.get_balance(message["from"]) + lent)
                computation = state.apply_transaction(SpoofTransaction(unsigned, from_=message["from"]))
            except (ValidationError, VMError) as error:
                raise TransactionRefusedError(str(error)) from error
            finally:
                state.revert(snapshot)
            _raise_if_reverted(computation)
            return computation.output, message["gas"] - computation.get_gas_remaining()

    # Transactions

    def send(self, raw: bytes, *, keep_reverted: bool = True) -> bytes:
        """Mine a signed transaction in a block of its own and return its hash.

        With `keep_reverted=False` a transaction that a contract refuses is not mined at all and raises
        ExecutionRevertedError; else it is mined with status 0, as on any node. Raises TransactionRefusedError.
        """
        with self._lock:
            try:
                transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
            except Exception as error:  # rlp raises many kinds, and all of them mean the same to the sender
                raise TransactionRefusedError(f"not a signed transaction: {error}") from error
            if transaction.chain_id != self.chain_id:  # py-evm does not look; without this, a transaction could be replayed here
                raise TransactionRefusedError(
                    f"the transaction is for chain {transaction.chain_id}, this is chain {self.chain_id}"
                )
            try:
                with self._database.transaction():
                    chain = self._chain_class(self._base, self.pending_header())
                    _, _, computation = chain.apply_transaction(transaction)
                    if not keep_reverted:
                        _raise_if_reverted(computation)
                    chain.mine_block(mix_hash=os.urandom(32), blob_gas_used=0)
            except (ValidationError, VMError) as error:
                raise TransactionRefusedError(str(error)) from error
            finally:
                self._chain = self._chain_class(self._base)  # whatever was cached of a block that did not come to be is dropped
            return bytes(transaction.hash)


def _raise_if_reverted(computation: ComputationAPI) -> None:
    if computation.is_error:
        is_revert = isinstance(computation.error, Revert)
        raise ExecutionRevertedError(bytes(computation.output), "execution reverted" if is_revert else repr(computation.error))


def open_node(path: Path, faucet: bytes) -> Node:
    """Open or create the chain in `path`. Raises ChainError when the file is no chain of ours."""
    try:
        return Node(path, faucet)
    except Exception as error:
        raise ChainError(
            f"the embedded chain in {path} cannot be opened ({error!r}); move the file away to begin a new chain"
        ) from error
