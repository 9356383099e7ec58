"""Asking the model: what it is given, and what it writes."""

from pydantic import Field, with_config
from typing_extensions import TypedDict

from pluralis_lab.engines.question_checks import MAX_TOKENS
from pluralis_lab.server.shapes.base import EXACT, Body


class PromptBody(Body):
    """Have the model of a live run go on with a text."""

    prompt: str = Field(min_length=1, max_length=MAX_TOKENS, description="the text to go on from; every stage can read it")
    tokens: int = Field(100, ge=1, le=MAX_TOKENS, description="how many to write; of the built-in corpora one is a byte")
    temperature: float = Field(0.8, ge=0, description="0: the likeliest token; above: drawn, the more freely the higher")
    seed: int = Field(0, ge=0, lt=2**63, description="of what is drawn")


@with_config(EXACT)
class Written(TypedDict):
    """One token's text, "" for a part of a character; `error` says why no more comes."""

    text: str
    is_last: bool
    error: str
