"""What a contract says when it refuses, in words: its custom error's name, its arguments, and what to do."""

from functools import cache
from typing import Any

from pluralis_lab.chain.contract_files import CONTRACTS, load_artifact
from pluralis_lab.errors import ChainError

_REMEDIES = {
    "EpochOutOfOrder": "epochs are posted once and in order; another caller may have posted it, so read the ledger again",
    "WrongAttempt": "this ledger takes the first attempt of an epoch only",
    "QuorumNotReached": "collect more attesters' signatures over this epoch",
    "NotAnAttester": "a signature is of nobody in this ledger's set, or over another run, chain, ledger or root",
    "SignersNotAscending": "give one signature for each attester, ordered by address",
    "EpochNotPosted": "post the epoch first",
    "EpochAlreadyFinal": "nothing is left to do for this epoch",
    "ChallengeWindowOpen": "wait until the challenge window has passed",
    "EpochNotFinal": "finalise the epoch first",
    "AlreadyClaimed": "these shares have been handed out; they are in their owner's balance",
    "InvalidProof": "the claim is not in the epoch's table: compare run, epoch, index, account and amount with the evidence",
    "EpochOverdrawn": "the epoch's table sums to more than it minted; audit the run",
    "NobodyToPay": "no shares exist yet: tokenize a run with a paid epoch first",
    "NothingPaid": "send more than 0 wei",
    "NothingToClaim": "nothing has been earned since the last claim",
    "PaymentRefused": "the receiver does not accept ether; name another",
    "CannotHoldShares": "send shares to an account, not to the ledger or the token",
    "OnlyLedger": "only the run's ledger may do this",
    "ERC20InsufficientBalance": "the account has fewer shares than that",
}
_ERROR_STRING, _PANIC = bytes.fromhex("08c379a0"), bytes.fromhex("4e487b71")


class ContractRefusedError(ChainError):
    """A contract refused a call. `name` is its custom error, `arguments` what it said with it."""

    def __init__(self, name: str, arguments: dict[str, Any], message: str) -> None:
        super().__init__(message)
        self.name, self.arguments = name, arguments


@cache
def _known_errors() -> dict[bytes, tuple[str, tuple[str, ...], tuple[str, ...]]]:
    from eth_utils.crypto import keccak

    known = {}
    for contract in CONTRACTS:
        for entry in load_artifact(contract)["abi"]:
            if entry["type"] == "error":
                types = tuple(argument["type"] for argument in entry["inputs"])
                names = tuple(argument["name"] for argument in entry["inputs"])
                known[keccak(text=f"{entry['name']}({','.join(types)})")[:4]] = (entry["name"], types, names)
    return known


def decode_revert(data: bytes) -> ContractRefusedError:
    """The error that a contract's return data stands for: a custom error, a text, a panic, or something unknown."""
    from eth_abi.abi import decode
    from eth_utils.address import to_checksum_address

    selector, body = data[:4], data[4:]
    if selector in _known_errors():
        name, types, names = _known_errors()[selector]
        values = [
            to_checksum_address(value) if kind == "address" else value
            for kind, value in zip(types, decode(types, body), strict=True)
        ]
        arguments = dict(zip(names, values, strict=True))
        said = ", ".join(f"{key}={_shown(value)}" for key, value in arguments.items())
        remedy = _REMEDIES.get(name)
        return ContractRefusedError(name, arguments, f"{name}({said})" + (f": {remedy}" if remedy else ""))
    if selector == _ERROR_STRING:
        (text,) = decode(["string"], body)
        return ContractRefusedError("Error", {"message": text}, f"the contract refused: {text}")
    if selector == _PANIC:
        (code,) = decode(["uint256"], body)
        return ContractRefusedError(
            "Panic", {"code": code}, f"the contract stopped at its own check, panic 0x{code:02x}: a fault of ours"
        )
    if not data:
        return ContractRefusedError("", {}, "the contract refused without a reason: out of gas, or no contract of ours")
    return ContractRefusedError("", {}, f"the contract refused with unknown data 0x{data.hex()[:80]}")


def revert_data(error: BaseException) -> bytes | None:
    """What a contract returned, from our own or web3's exception for it, or None when it is no revert."""
    data = getattr(error, "data", None)
    if isinstance(data, dict):  # some nodes wrap it
        data = data.get("data") or data.get("result")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    if isinstance(data, str) and data.startswith("0x"):
        return bytes.fromhex(data[2:])
    return b"" if type(error).__name__ in ("ContractLogicError", "ContractCustomError", "ContractPanicError") else None


def as_chain_error(error: Exception) -> ChainError:
    """Any provider's exception as the ChainError that a user should see."""
    data = revert_data(error)
    if data is not None:
        return decode_revert(data)
    if isinstance(error, ChainError):
        return error
    return ChainError(f"the node refused or could not be reached: {type(error).__name__}: {error}")


def _shown(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
