"""The embedded chain as web3 sees it: blocks, receipts, logs, past states and refusals, like on any node."""

import time

import pytest

from pluralis_lab.chain.provider import RpcError


@pytest.fixture
def sent(direct):
    """A receipt of a plain transfer of 5 wei, and who sent it to whom."""
    sender, target = direct.account("lab-a"), direct.account("lab-b")
    return direct.transact("lab-a", to=target.address, value=5), sender, target


def test_a_receipt_and_its_block_agree(direct, sent):
    receipt, sender, target = sent
    eth = direct.web3.eth
    block = eth.get_block(receipt["blockNumber"], full_transactions=True)
    assert block["hash"] == receipt["blockHash"] == eth.get_block(receipt["blockHash"])["hash"]
    (transaction,) = block["transactions"]
    assert (transaction["from"], transaction["to"], transaction["value"]) == (sender.address, target.address, 5)
    assert transaction["hash"] == receipt["transactionHash"]
    assert receipt["gasUsed"] == 21_000 == block["gasUsed"]
    assert receipt["effectiveGasPrice"] >= block["baseFeePerGas"]
    assert eth.get_block(receipt["blockNumber"] - 1)["hash"] == block["parentHash"]


def test_blocks_carry_the_wall_clock_however_quickly_they_follow(direct, sent):
    for _ in range(5):
        receipt = direct.transact("lab-a", to=sent[2].address, value=1)
    assert abs(direct.web3.eth.get_block(receipt["blockNumber"])["timestamp"] - time.time()) < 3


def test_past_states_can_be_asked_for(direct, sent):
    receipt, _, target = sent
    balance = direct.web3.eth.get_balance
    assert balance(target.address, receipt["blockNumber"]) - balance(target.address, receipt["blockNumber"] - 1) == 5
    assert balance(target.address, "earliest") == 0


def test_logs_are_found_by_address_and_topic(run):
    contracts = run.contracts()
    contracts.post(run.close())
    receipt = contracts.send(contracts.ledger, "finalizeEpoch", 0)
    eth = run.chain.web3.eth
    logs = eth.get_logs({"address": contracts.token.address, "fromBlock": 0})
    assert [log["transactionHash"] for log in logs] == [receipt["transactionHash"]]
    topic = logs[0]["topics"][0]
    assert eth.get_logs({"address": contracts.token.address, "fromBlock": 0, "topics": [topic]}) == logs
    assert eth.get_logs({"address": contracts.token.address, "fromBlock": 0, "topics": [[topic, b"\1" * 32], None]}) == logs
    assert eth.get_logs({"address": contracts.token.address, "fromBlock": 0, "topics": [b"\1" * 32]}) == []
    assert eth.get_logs({"blockHash": receipt["blockHash"], "address": contracts.token.address}) == logs
    assert {log["logIndex"] for log in receipt["logs"]} == set(range(len(receipt["logs"])))


def test_what_is_not_there_is_null(direct):
    assert direct._daemon.call("eth_getTransactionReceipt", "0x" + "00" * 32) is None
    assert direct._daemon.call("eth_getTransactionByHash", "0x" + "00" * 32) is None
    assert direct._daemon.call("eth_getBlockByNumber", hex(10**9), False) is None
    assert direct._daemon.call("eth_getBlockByHash", "0x" + "00" * 32, False) is None


def test_estimates_are_enough(run):
    contracts = run.contracts()
    close = run.close()
    contracts.post(close)
    estimate = contracts.ledger.functions.finalizeEpoch(0).estimate_gas({"from": run.accounts[0].address})
    data = contracts.ledger.encode_abi("finalizeEpoch", args=[0])
    receipt = run.chain.transact("lab-a", to=contracts.ledger.address, data=data, gas=estimate)
    assert receipt["gasUsed"] <= estimate < 2 * receipt["gasUsed"]


def test_fees_are_reported(direct, sent):
    history = direct.web3.eth.fee_history(4, "latest", [50])
    assert len(history["baseFeePerGas"]) == len(history["gasUsedRatio"]) + 1
    assert direct.web3.eth.gas_price > 0


def raw(direct, **instead):
    from pluralis_lab.chain.keystore import Keystore

    signer = Keystore(direct.home).signer("embedded", "lab-a")
    transaction = {
        "chainId": direct.chain_id,
        "nonce": direct.web3.eth.get_transaction_count(signer.address),
        "gas": 21_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 10**9,
        "to": signer.address,
        "value": 0,
    } | instead
    return signer.sign_transaction(transaction).raw_transaction


def test_a_raw_transaction_is_mined_once(direct):
    direct.account("lab-a")
    signed = raw(direct)
    transaction_hash = direct.web3.eth.send_raw_transaction(signed)
    assert direct.web3.eth.get_transaction_receipt(transaction_hash)["status"] == 1
    with pytest.raises(Exception, match="nonce"):
        direct.web3.eth.send_raw_transaction(signed)


@pytest.mark.parametrize(
    "instead",
    [{"chainId": 1}, {"value": 10**27}, {"gas": 20_000}, {"nonce": 10**6}, {"maxFeePerGas": 1, "maxPriorityFeePerGas": 1}],
)
def test_a_raw_transaction_that_cannot_be_is_refused_and_changes_nothing(direct, instead):
    direct.account("lab-a")
    for _ in range(3):
        block = direct.web3.eth.block_number
        signed = raw(direct, **instead)
        if "maxFeePerGas" in instead and direct.web3.eth.get_block("latest")["baseFeePerGas"] <= 1:
            pytest.skip("the base fee has fallen below one wei")
        with pytest.raises(Exception, match=r"(?i)nonce|funds|balance|gas|fee|chain"):
            direct.web3.eth.send_raw_transaction(signed)
        assert direct.web3.eth.block_number == block


def test_a_transaction_that_any_chain_would_take_is_refused(direct):
    """One of before EIP-155 names no chain, so it could be replayed on every other."""
    from eth_keys.datatypes import PrivateKey
    from eth_utils.crypto import keccak
    from rlp import encode

    key = PrivateKey(b"\1" * 32)
    unsigned = [0, 10**10, 21_000, b"\2" * 20, 0, b""]
    signature = key.sign_msg_hash(keccak(encode(unsigned)))
    legacy = encode([*unsigned, signature.v + 27, signature.r, signature.s])
    with pytest.raises(RpcError, match="is for chain None"):
        direct._daemon.call("eth_sendRawTransaction", "0x" + legacy.hex())


def test_garbage_is_no_transaction(direct):
    for garbage in ("0x", "0x00", "0x02f8", "0x" + "ff" * 100):
        with pytest.raises(RpcError, match="not a signed transaction"):
            direct._daemon.call("eth_sendRawTransaction", garbage)
    with pytest.raises(RpcError, match="0x-hex"):
        direct._daemon.call("eth_sendRawTransaction", "zz")


def test_a_transaction_above_the_cap_is_refused(direct):
    account = direct.account("lab-a")
    with pytest.raises(Exception, match="16777216"):
        direct.transact("lab-a", to=account.address, gas=16_777_217)
    with pytest.raises(RpcError, match="16777216"):
        direct._daemon.call("pluralis_sendTransaction", "embedded", "lab-a", {"to": account.address, "gas": hex(2 * 10**7)})
