import json
import subprocess
import sys

import pytest
from eth_account import Account

from pluralis_lab.contributions.attestation import authorisation_typed_data, epoch_typed_data, recover_typed, sign_typed_with_key
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.errors import EvidenceError

SECRET = bytes(31) + b"\x05"
ADDRESS = Account.from_key(SECRET).address
LEDGER = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
RUN, ROOT, DATA, MODEL = "ab" * 32, "0x" + "01" * 32, "02" * 32, "03" * 32
EPOCH = {"run_id": RUN, "epoch": 4, "attempt": 0, "root": ROOT, "data_hash": DATA, "model_hash": MODEL}
CHAIN = {"chain_id": 131277322940537, "verifying_contract": LEDGER}


def typed():
    return [
        authorisation_typed_data(RUN, "worker-1", HotKey.from_seed(b"k").address, **CHAIN),
        epoch_typed_data(**EPOCH, **CHAIN),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_eth_account_signs_and_recovers_the_same(which):
    data = typed()[which]
    signature = sign_typed_with_key(data, SECRET)
    assert signature == "0x" + bytes(Account.sign_typed_data(SECRET, full_message=data).signature).hex()
    assert recover_typed(data, signature) == ADDRESS
    assert recover_typed(json.loads(json.dumps(data)), signature) == ADDRESS  # as it travels to the chain daemon


def test_the_epoch_struct_hashes_as_the_ledger_computes_it():
    from eth_abi import encode
    from eth_utils import keccak

    from pluralis_lab.contributions.attestation import typed_data_digest

    kind = "Epoch(bytes32 runId,uint64 epoch,uint32 attempt,bytes32 root,bytes32 dataHash,bytes32 modelHash)"
    hashes = [bytes.fromhex(text.removeprefix("0x")) for text in (RUN, ROOT, DATA, MODEL)]
    fields = [keccak(text=kind), hashes[0], 4, 0, *hashes[1:]]
    struct = keccak(encode(["bytes32", "bytes32", "uint64", "uint32", "bytes32", "bytes32", "bytes32"], fields))
    domain = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    parts = [keccak(text=domain), keccak(text="pluralis_lab"), keccak(text="1"), CHAIN["chain_id"], LEDGER]
    separator = keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], parts))
    assert typed_data_digest(typed()[1]) == keccak(b"\x19\x01" + separator + struct)


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "00" * 32}, {"epoch": 5}, {"attempt": 1}, {"root": DATA}, {"data_hash": MODEL}, {"model_hash": DATA},
        {"chain_id": 1}, {"verifying_contract": ADDRESS},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_signature_holds_for_one_run_epoch_root_chain_and_contract(change):
    signature = sign_typed_with_key(epoch_typed_data(**EPOCH, **CHAIN), SECRET)
    assert recover_typed(epoch_typed_data(**(EPOCH | CHAIN | change)), signature) != ADDRESS


@pytest.mark.parametrize(
    "change", [{"run_id": "ab"}, {"root": None}, {"epoch": -1}, {"attempt": 2**32}, {"verifying_contract": "0x1"}]
)
def test_values_of_another_form_are_refused(change):
    with pytest.raises(EvidenceError):
        epoch_typed_data(**(EPOCH | CHAIN | change))


def test_malformed_typed_data_and_signatures_are_refused():
    with pytest.raises(EvidenceError, match="typed data"):
        recover_typed({"types": {}}, "0x" + "11" * 65)
    with pytest.raises(EvidenceError, match="signature"):
        recover_typed(typed()[0], "0x11")


def test_the_libraries_of_ethereum_leave_the_recursion_limit_alone():
    code = """
import sys
before = sys.getrecursionlimit()
from pluralis_lab.contributions.attestation import load_encoder
load_encoder()
from pluralis_lab.chain import Chain
Chain("http://127.0.0.1:1").web3
assert {"py_ecc", "web3"} <= sys.modules.keys()
print(sys.getrecursionlimit() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "0\n", done.stderr[-2000:]
