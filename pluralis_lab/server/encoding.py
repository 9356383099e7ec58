"""JSON for the wire: strict (no NaN), in plain ASCII, so that no text from a run can break it."""

import json
import math
from typing import Any


def to_json(value: Any) -> bytes:
    """Return `value` as JSON; what is infinite or not a number, which JSON has no word for, becomes null."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
