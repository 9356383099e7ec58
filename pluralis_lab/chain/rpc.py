"""The JSON-RPC methods of the embedded chain: the eth_* that a client library needs; none unlocks, mines or travels in time."""

from collections.abc import Callable
from typing import Any

from eth.exceptions import HeaderNotFound, TransactionNotFound
from eth_bloom.bloom import BloomFilter

from pluralis_lab.chain.node import PRIORITY_FEE_WEI, TRANSACTION_GAS_CAP, Mined, Node
from pluralis_lab.chain.rpc_values import (
    InvalidParamsError,
    address_or_none,
    contract_address,
    to_address,
    to_bytes,
    to_hex,
    to_int,
)


class EthereumMethods:
    """The allowed eth_*, net_* and web3_* methods over a `Node`; `table` maps their names to functions of the parameters."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.table: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "pluralis_lab/embedded",
            "net_version": lambda: str(node.chain_id),
            "eth_chainId": lambda: to_hex(node.chain_id),
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_blockNumber": lambda: to_hex(node.head().block_number),
            "eth_gasPrice": lambda: to_hex(node.pending_header().base_fee_per_gas + PRIORITY_FEE_WEI),
            "eth_maxPriorityFeePerGas": lambda: to_hex(PRIORITY_FEE_WEI),
            "eth_feeHistory": self.fee_history,
            "eth_getBalance": self.get_balance,
            "eth_getTransactionCount": self.get_transaction_count,
            "eth_getCode": self.get_code,
            "eth_getStorageAt": self.get_storage_at,
            "eth_call": self.call,
            "eth_estimateGas": self.estimate_gas,
            "eth_sendRawTransaction": self.send_raw_transaction,
            "eth_getBlockByNumber": self.get_block_by_number,
            "eth_getBlockByHash": self.get_block_by_hash,
            "eth_getTransactionByHash": self.get_transaction,
            "eth_getTransactionReceipt": self.get_receipt,
            "eth_getLogs": self.get_logs,
        }

    def _number(self, tag: Any) -> int:
        if tag == "earliest":
            return 0
        if tag in ("latest", "pending", "safe", "finalized"):
            head: int = self._node.head().block_number
            return head
        return to_int(tag)

    def _header(self, tag: Any) -> Any:
        """The header that a block tag means, or None for the present state."""
        number = self._number(tag)
        if number == self._node.head().block_number:
            return None
        return self._block(number).header

    def _block(self, number: int) -> Any:
        try:
            return self._node.block(number)
        except KeyError as error:
            raise InvalidParamsError(f"there is no block {number} yet") from error

    def fee_history(self, count: Any, newest: Any, percentiles: Any = ()) -> dict[str, Any]:
        """Base fees and fullness of up to 1024 blocks; every reward is the same."""
        last = self._number(newest)
        first = max(0, last - min(to_int(count), 1024) + 1)
        headers = [self._block(number).header for number in range(first, last + 1)]
        next_fee = self._node.pending_header().base_fee_per_gas
        return {
            "oldestBlock": to_hex(first),
            "baseFeePerGas": [*(to_hex(header.base_fee_per_gas) for header in headers), to_hex(next_fee)],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "reward": [[to_hex(PRIORITY_FEE_WEI)] * len(percentiles) for _ in headers],
        }

    def get_balance(self, address: Any, tag: Any = "latest") -> str:
        """Wei of an account."""
        return to_hex(self._node.state(self._header(tag)).get_balance(to_address(address)))

    def get_transaction_count(self, address: Any, tag: Any = "latest") -> str:
        """The nonce of an account's next transaction."""
        return to_hex(self._node.state(self._header(tag)).get_nonce(to_address(address)))

    def get_code(self, address: Any, tag: Any = "latest") -> str:
        """A contract's code, 0x for any other account."""
        return to_hex(self._node.state(self._header(tag)).get_code(to_address(address)))

    def get_storage_at(self, address: Any, slot: Any, tag: Any = "latest") -> str:
        """One 32-byte word of a contract's storage."""
        word: int = self._node.state(self._header(tag)).get_storage(to_address(address), to_int(slot))
        return "0x" + word.to_bytes(32, "big").hex()

    def message(self, transaction: Any) -> dict[str, Any]:
        """A transaction object in the form that `Node.call` takes."""
        if not isinstance(transaction, dict):
            raise InvalidParamsError("expected a transaction object")
        data = transaction.get("input", transaction.get("data", "0x"))
        target = transaction.get("to")
        return {
            "from": to_address(transaction.get("from", "0x" + "00" * 20)),
            "to": to_address(target) if target else b"",
            "data": to_bytes(data),
            "value": to_int(transaction.get("value", 0)),
            "gas": min(to_int(transaction.get("gas", TRANSACTION_GAS_CAP)), TRANSACTION_GAS_CAP),
        }

    def call(self, transaction: Any, tag: Any = "latest") -> str:
        """Run a call without a transaction, at the present or after a mined block."""
        return to_hex(self._node.call(self.message(transaction), self._header(tag))[0])

    def estimate_gas(self, transaction: Any, tag: Any = "latest") -> str:
        """An upper bound of the gas a transaction needs: what it uses now, a quarter more and 20,000."""
        used = self._node.call(self.message(transaction), self._header(tag))[1]
        return to_hex(used if used == 21_000 else min(used + used // 4 + 20_000, TRANSACTION_GAS_CAP))

    def send_raw_transaction(self, raw: Any) -> str:
        """Mine a signed transaction and return its hash."""
        return to_hex(self._node.send(to_bytes(raw)))

    def get_block_by_number(self, tag: Any, full: Any = False) -> dict[str, Any] | None:
        """A block, or null when there is none of that number."""
        number = self._number(tag)
        return self._block_object(self._node.block(number), bool(full)) if number <= self._node.head().block_number else None

    def get_block_by_hash(self, block_hash: Any, full: Any = False) -> dict[str, Any] | None:
        """A block, or null when there is none of that hash."""
        try:
            return self._block_object(self._node.block_by_hash(to_bytes(block_hash)), bool(full))
        except HeaderNotFound:
            return None

    def get_transaction(self, transaction_hash: Any) -> dict[str, Any] | None:
        """A mined transaction, or null."""
        try:
            return self._transaction_object(self._node.transaction(to_bytes(transaction_hash)))
        except TransactionNotFound:
            return None

    def get_receipt(self, transaction_hash: Any) -> dict[str, Any] | None:
        """A mined transaction's receipt, or null."""
        try:
            mined = self._node.transaction(to_bytes(transaction_hash))
        except TransactionNotFound:
            return None
        transaction, header = mined.transaction, mined.block.header
        created = not transaction.to and mined.receipt.state_root == b"\x01"
        return {
            **self._place(mined),
            "type": to_hex(getattr(transaction, "type_id", None) or 0),
            "status": to_hex(int(mined.receipt.state_root == b"\x01")),
            "from": address_or_none(transaction.sender),
            "to": address_or_none(transaction.to),
            "contractAddress": contract_address(transaction.sender, transaction.nonce) if created else None,
            "gasUsed": to_hex(mined.gas_used),
            "cumulativeGasUsed": to_hex(mined.receipt.gas_used),
            "effectiveGasPrice": to_hex(_effective_gas_price(transaction, header)),
            "logs": self._logs(mined),
            "logsBloom": "0x" + mined.receipt.bloom.to_bytes(256, "big").hex(),
        }

    def get_logs(self, query: Any) -> list[dict[str, Any]]:
        """Logs of a range of blocks, by address and topics; blocks whose bloom filter rules the address out are skipped."""
        if not isinstance(query, dict):
            raise InvalidParamsError("expected a filter object")
        wanted = query.get("address")
        addresses = None if wanted is None else {to_address(a) for a in (wanted if isinstance(wanted, list) else [wanted])}
        topics = [
            None if t is None else {to_bytes(x) for x in (t if isinstance(t, list) else [t])} for t in query.get("topics") or []
        ]
        if "blockHash" in query:
            first = last = self._node.block_by_hash(to_bytes(query["blockHash"])).number
        else:
            first, last = self._number(query.get("fromBlock", "latest")), self._number(query.get("toBlock", "latest"))
        found = []
        for number in range(first, min(last, self._node.head().block_number) + 1):
            block = self._node.block(number)
            if addresses is not None and not any(_in_bloom(block.header.bloom, address) for address in addresses):
                continue
            for mined in self._node.mined(block):
                found += [log for log in self._logs(mined) if _matches(log, addresses, topics)]
        return found

    def _place(self, mined: Mined) -> dict[str, Any]:
        return {
            "blockHash": to_hex(mined.block.hash),
            "blockNumber": to_hex(mined.block.number),
            "transactionHash": to_hex(mined.transaction.hash),
            "transactionIndex": to_hex(mined.index),
        }

    def _logs(self, mined: Mined) -> list[dict[str, Any]]:
        return [
            {
                **self._place(mined),
                "address": address_or_none(log.address),
                "data": to_hex(log.data),
                "topics": ["0x" + topic.to_bytes(32, "big").hex() for topic in log.topics],
                "logIndex": to_hex(mined.first_log_index + offset),
                "removed": False,
            }
            for offset, log in enumerate(mined.receipt.logs)
        ]

    def _transaction_object(self, mined: Mined) -> dict[str, Any]:
        transaction = mined.transaction
        kind = getattr(transaction, "type_id", None) or 0
        place = self._place(mined)
        place["hash"] = place.pop("transactionHash")
        price = _effective_gas_price(transaction, mined.block.header)
        shown = {
            **place,
            "type": to_hex(kind),
            "nonce": to_hex(transaction.nonce),
            "from": address_or_none(transaction.sender),
            "to": address_or_none(transaction.to),
            "value": to_hex(transaction.value),
            "gas": to_hex(transaction.gas),
            "gasPrice": to_hex(price),
            "input": to_hex(transaction.data),
            "r": to_hex(transaction.r),
            "s": to_hex(transaction.s),
            "v": to_hex(transaction.y_parity if kind else transaction.v),
        }
        if kind:
            shown["chainId"] = to_hex(self._node.chain_id)
        if kind >= 2:
            shown["maxFeePerGas"] = to_hex(transaction.max_fee_per_gas)
            shown["maxPriorityFeePerGas"] = to_hex(transaction.max_priority_fee_per_gas)
        return shown

    def _block_object(self, block: Any, full: bool) -> dict[str, Any]:
        header = block.header
        mined = self._node.mined(block)
        return {
            "number": to_hex(header.block_number),
            "hash": to_hex(header.hash),
            "parentHash": to_hex(header.parent_hash),
            "nonce": to_hex(header.nonce),
            "sha3Uncles": to_hex(header.uncles_hash),
            "logsBloom": "0x" + header.bloom.to_bytes(256, "big").hex(),
            "transactionsRoot": to_hex(header.transaction_root),
            "stateRoot": to_hex(header.state_root),
            "receiptsRoot": to_hex(header.receipt_root),
            "miner": address_or_none(header.coinbase),
            "difficulty": to_hex(header.difficulty),
            "extraData": to_hex(header.extra_data),
            "mixHash": to_hex(header.mix_hash),
            "gasLimit": to_hex(header.gas_limit),
            "gasUsed": to_hex(header.gas_used),
            "baseFeePerGas": to_hex(header.base_fee_per_gas),
            "timestamp": to_hex(header.timestamp),
            "size": to_hex(0),
            "uncles": [],
            "transactions": [self._transaction_object(m) if full else to_hex(m.transaction.hash) for m in mined],
        }


def _effective_gas_price(transaction: Any, header: Any) -> int:
    price: int = min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + header.base_fee_per_gas)
    return price


def _in_bloom(bloom: int, address: bytes) -> bool:
    return address in BloomFilter(bloom)


def _matches(log: dict[str, Any], addresses: set[bytes] | None, topics: list[set[bytes] | None]) -> bool:
    if addresses is not None and to_bytes(log["address"]) not in addresses:
        return False
    if len(topics) > len(log["topics"]):
        return False
    return all(wanted is None or to_bytes(topic) in wanted for wanted, topic in zip(topics, log["topics"], strict=False))
