"""What a question to the model must look like: checked where it is asked, and again where it comes in from a socket."""

import math
from typing import Any

from pluralis_lab.errors import RunError

MAX_TOKENS = 100_000
"""Of a prompt, and of what is written after it: so many wait in the supervisor for a reader that does not read."""
MAX_BATCHES = 4096


def check_prompt(ids: Any, tokens: Any, temperature: Any, seed: Any, *, vocab: int) -> None:
    """Raise RunError, naming the value and the remedy, for a prompt that cannot be written on."""
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_TOKENS:
        raise RunError(f"a prompt has from 1 to {MAX_TOKENS:,} tokens")
    if not all(type(token) is int and 0 <= token < vocab for token in ids):
        raise RunError(f"the prompt has tokens that the model does not know; it knows 0 to {vocab - 1}")
    if type(tokens) is not int or not 1 <= tokens <= MAX_TOKENS:
        raise RunError(f"tokens={str(tokens)[:40]}; use a whole number from 1 to {MAX_TOKENS:,}")
    if type(temperature) not in (int, float) or not 0 <= temperature < math.inf:
        raise RunError(f"temperature={str(temperature)[:40]}; use 0 for the likeliest token, or a number above")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise RunError(f"seed={str(seed)[:40]}; use a whole number from 0 to 2**63 - 1")


def check_batches(batches: Any) -> None:
    """Raise RunError for a number of held-out micro-batches that is none."""
    if type(batches) is not int or not 1 <= batches <= MAX_BATCHES:
        raise RunError(f"batches={str(batches)[:40]}; use a whole number from 1 to {MAX_BATCHES}")
