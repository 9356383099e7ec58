"""One byte string for one value: the JSON form that is hashed and signed everywhere."""

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, no blanks and ASCII only.

    Raises ValueError for NaN and infinities, because two parsers may disagree about them.
    """
    return _ENCODER.encode(value).encode("ascii")


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal characters."""
    return hashlib.sha256(data).hexdigest()
