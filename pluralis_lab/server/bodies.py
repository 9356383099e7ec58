"""A request's body: bytes from anybody, checked down to the last key before it is used."""

import json
from typing import Any, NoReturn

from pydantic import ValidationError

from pluralis_lab.parts import explain
from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.shapes.base import Body

MAX_BRACKETS = 1_000
"""Python's JSON decoder recurses in C; no body of ours is nested or listed like that."""


def read_body(raw: bytes, shape: type[Body]) -> Body:
    """Return the body as `shape`. Raises Refusal (400) that names the value and what would be right."""
    if raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS:
        raise Refusal(400, f"the body holds more than {MAX_BRACKETS} brackets; send the fields of {shape.__name__} alone")
    try:
        fields: Any = json.loads(raw.decode() or "{}", parse_constant=_no_constant)
        json.dumps(fields, ensure_ascii=False).encode()  # text that is not Unicode (a lone surrogate) ends here
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON in UTF-8 ({str(error)[:200]}); send one object") from None
    if not isinstance(fields, dict):
        raise Refusal(400, f"the body is a JSON {type(fields).__name__}; send one object")
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        raise Refusal(400, explain(error, shape)) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
