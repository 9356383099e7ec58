"""Strict fields: one value of a statement that a peer sent, checked; every error names the field (EvidenceError)."""

import math
import re
from typing import Any

from pluralis_lab.errors import EvidenceError


def object_fields(value: object, names: set[str], where: str) -> dict[str, Any]:
    """Return `value` when it is an object with exactly the fields `names`."""
    if not isinstance(value, dict):
        raise EvidenceError(f"{where}={shown(value)}; it is an object with {', '.join(sorted(names))}")
    if value.keys() != names:
        wrong = [f"no {name}" for name in sorted(names - value.keys())]
        wrong += [f"unknown {shown(name)}" for name in sorted(value.keys() - names, key=repr)]
        raise EvidenceError(f"{where} has {', '.join(wrong)}; its fields are {', '.join(sorted(names))}")
    return value


def count_field(value: object, where: str) -> int:
    """Return `value` when it is an integer from 0 to 2**63 - 1, and no bool."""
    if type(value) is not int or not 0 <= value < 2**63:  # bool is an int, and is no count
        raise EvidenceError(f"{where}={shown(value)}; it is an integer from 0 to 2**63 - 1")
    return value


def name_field(value: object, where: str) -> str:
    """Return `value` when it can be a worker's name."""
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise EvidenceError(f"{where}={shown(value)}; it is a worker's name, 1 to 128 characters")
    return value


def text_field(value: object, pattern: re.Pattern[str], where: str, form: str) -> str:
    """Return `value` when it is a string that matches `pattern`, which `form` describes."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise EvidenceError(f"{where}={shown(value)}; it is {form}")
    return value


def real_field(value: object, where: str, low: float, high: float) -> float | None:
    """Return `value` when it is None or a finite float from `low` to `high`."""
    if value is None:
        return None
    if type(value) is not float or not math.isfinite(value) or not low <= value <= high:
        raise EvidenceError(f"{where}={shown(value)}; it is null or a finite float from {low} to {high}")
    return value


def shown(value: object) -> str:
    """Return a short text of `value` for an error message."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
