"""JSON that came from outside.

Python's own decoder calls itself, in C, as often as the recursion limit lets it. py_ecc, which every library of Ethereum loads,
sets that to 100,000 for the whole process: from then on a line of opening brackets, sent by anybody, ends it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json


def parse_foreign(text: str | bytes) -> Any:
    """Return what `text` holds. Raises ValueError for what is not JSON in UTF-8, and for what is nested 200 times."""
    return from_json(text, allow_inf_nan=False)


@contextmanager
def kept_recursion_limit() -> Iterator[None]:
    """Keep the recursion limit as it is while libraries load, for the JSON that these will decode themselves."""
    before = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
