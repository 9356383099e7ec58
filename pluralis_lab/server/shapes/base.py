"""What the shapes have in common: replies name all their fields, requests may have no others."""

from typing import Any

from pydantic import BaseModel, ConfigDict, with_config
from typing_extensions import TypedDict

EXACT = ConfigDict(extra="forbid")

Spec = dict[str, Any]


class Body(BaseModel):
    """Base of a request's body: no unknown key, and no value that would have to be converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@with_config(EXACT)
class ApiError(TypedDict):
    """What a refused request says; `message` names the value and the remedy, `reason` is a word for programs."""

    message: str
    reason: str
