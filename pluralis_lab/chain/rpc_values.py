"""The forms of values in JSON-RPC: 0x-hex quantities, bytes and addresses."""

from typing import Any

import rlp  # type: ignore[import-untyped]
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak


class InvalidParamsError(ValueError):
    """The parameters of a call do not have the form that the method needs."""


def to_hex(value: int | bytes) -> str:
    """The JSON-RPC form of a quantity or of bytes."""
    return hex(value) if isinstance(value, int) else "0x" + bytes(value).hex()


def to_bytes(value: Any) -> bytes:
    """Bytes of a 0x-hex string. Raises InvalidParamsError."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise InvalidParamsError(f"expected 0x-hex, got {value!r:.80}")
    try:
        return bytes.fromhex(value[2:])
    except ValueError as error:
        raise InvalidParamsError(f"expected 0x-hex, got {value!r:.80}") from error


def to_int(value: Any) -> int:
    """The integer of a JSON-RPC quantity (0x-hex, or a plain number). Raises InvalidParamsError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return int(value, 16)
        except ValueError:
            pass
    raise InvalidParamsError(f"expected a quantity, got {value!r:.80}")


def to_address(value: Any) -> bytes:
    """The 20 bytes of an address. Raises InvalidParamsError."""
    if not isinstance(value, str) or not is_address(value):
        raise InvalidParamsError(f"expected an address, got {value!r:.80}")
    return to_bytes(value)


def address_or_none(value: bytes) -> str | None:
    """The checksummed form of an address, null for the empty one of a contract's creation."""
    return str(to_checksum_address(value)) if value else None


def contract_address(sender: bytes, nonce: int) -> str:
    """The checksummed address of the contract that `sender`'s transaction `nonce` creates."""
    return str(to_checksum_address(keccak(rlp.encode([sender, nonce]))[12:]))
