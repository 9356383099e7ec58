"""What accounts sign: EIP-712 typed data that authorises a worker's key, or attests an epoch's root."""

from collections.abc import Mapping
from typing import Any

from pluralis_lab.contributions.keys import HotKey, checksum_address, keccak, recover_digest
from pluralis_lab.errors import EvidenceError
from pluralis_lab.foreign_json import kept_recursion_limit

_DOMAIN = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]
_AUTHORISATION = [
    {"name": "runId", "type": "bytes32"},
    {"name": "worker", "type": "string"},
    {"name": "key", "type": "address"},
]
_EPOCH = [
    {"name": "runId", "type": "bytes32"},
    {"name": "epoch", "type": "uint64"},
    {"name": "attempt", "type": "uint32"},
    {"name": "root", "type": "bytes32"},
    {"name": "dataHash", "type": "bytes32"},
    {"name": "modelHash", "type": "bytes32"},
]


def authorisation_typed_data(run_id: str, worker: str, key: str, chain_id: int, verifying_contract: str) -> dict[str, Any]:
    """Return the typed data `Authorisation(bytes32 runId,string worker,address key)`, plain JSON.

    run_id : 64 hexadecimal digits, with or without 0x
    worker : the worker's name; key : address of its hot key
    chain_id, verifying_contract : the chain and the ledger that the run was launched for
    Raises EvidenceError for a value of another form.
    """
    message = {"runId": bytes32(run_id, "run_id"), "worker": worker, "key": checksum_address(key)}
    return _typed_data("Authorisation", _AUTHORISATION, message, chain_id, verifying_contract)


def epoch_typed_data(
    run_id: str,
    epoch: int,
    attempt: int,
    root: str,
    data_hash: str,
    model_hash: str,
    chain_id: int,
    verifying_contract: str,
) -> dict[str, Any]:
    """Return the typed data `Epoch(runId,epoch,attempt,root,dataHash,modelHash)` of contracts.md, plain JSON.

    The four hashes are 64 hexadecimal digits, with or without 0x. Raises EvidenceError for a value of another form.
    """
    if not 0 <= epoch < 2**64 or not 0 <= attempt < 2**32:
        raise EvidenceError(f"epoch={epoch}, attempt={attempt}; they are a uint64 and a uint32")
    message = {
        "runId": bytes32(run_id, "run_id"),
        "epoch": epoch,
        "attempt": attempt,
        "root": bytes32(root, "root"),
        "dataHash": bytes32(data_hash, "data_hash"),
        "modelHash": bytes32(model_hash, "model_hash"),
    }
    return _typed_data("Epoch", _EPOCH, message, chain_id, verifying_contract)


def load_encoder() -> None:
    """Load what encodes typed data, which takes a second: where somebody may soon wait for a signature to be checked."""
    with kept_recursion_limit():
        import eth_account.messages  # noqa: F401


def typed_data_digest(typed_data: Mapping[str, Any]) -> bytes:
    """Return the 32 bytes that are signed for `typed_data` (EIP-712: keccak256(0x1901 || domain || struct)).

    Raises EvidenceError when it is not valid typed data.
    """
    load_encoder()
    from eth_account.messages import encode_typed_data

    try:
        message = encode_typed_data(full_message=dict(typed_data))
    except Exception as error:  # eth_account raises a dozen types for malformed input, which a peer may have sent
        raise EvidenceError(f"typed data cannot be encoded: {error}") from error
    return keccak(b"\x19" + message.version + message.header + message.body)


def recover_typed(typed_data: Mapping[str, Any], signature: str) -> str:
    """Return the address that signed `typed_data`. Raises EvidenceError for malformed data or a malformed signature."""
    return recover_digest(typed_data_digest(typed_data), signature)


def sign_typed_with_key(typed_data: Mapping[str, Any], private_key: bytes) -> str:
    """Return the 65-byte signature of `typed_data`, as "0x" and hexadecimal digits, by a secret of 32 bytes.

    For simulations and tests; an account of a real run signs in the chain daemon, which never hands out its key.
    """
    return HotKey(private_key).sign_digest(typed_data_digest(typed_data))


def bytes32(text: str, name: str) -> str:
    """Return `text` as "0x" and 64 lower-case hexadecimal digits. Raises EvidenceError that calls it `name`."""
    digits = text.removeprefix("0x") if isinstance(text, str) else ""
    try:
        if len(digits) != 64 or len(bytes.fromhex(digits)) != 32:
            raise ValueError
    except ValueError:
        raise EvidenceError(f"{name}={text!r} is not 32 bytes; give 64 hexadecimal digits") from None
    return "0x" + digits.lower()


def _typed_data(
    name: str, fields: list[dict[str, str]], message: dict[str, Any], chain_id: int, verifying_contract: str
) -> dict[str, Any]:
    return {
        "types": {"EIP712Domain": _DOMAIN, name: fields},
        "primaryType": name,
        "domain": {
            "name": "pluralis_lab",
            "version": "1",
            "chainId": chain_id,
            "verifyingContract": checksum_address(verifying_contract),
        },
        "message": message,
    }
