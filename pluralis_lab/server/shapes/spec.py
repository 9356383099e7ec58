"""Specs: the schema of a form, and the verdict on one with what it would cost."""

from typing import Any

from pydantic import with_config
from typing_extensions import TypedDict

from pluralis_lab.server.shapes.base import EXACT, Spec


@with_config(EXACT)
class SpecSchema(TypedDict):
    """RunSpec's JSON schema and the spec with every default."""

    schema: dict[str, Any]
    default: Spec


@with_config(EXACT)
class Estimate(TypedDict):
    """What a run of this spec would cost.

    boundary_bytes_per_round, contribution_bytes_per_round : what the busiest worker sends, see `estimating.estimate`
    flops_per_round : of all workers together; round_s : at the speed that this home's newest runs had, null without one
    """

    workers: int
    model_parameters: int
    stage_parameters: list[int]
    boundary_bytes_per_round: int
    contribution_bytes_per_round: int
    flops_per_round: int
    round_s: float | None
    tokens_per_round: int
    vocab_is_known: bool


@with_config(EXACT)
class SpecCheck(TypedDict):
    """Whether a spec can work."""

    ok: bool
    message: str
    fields: list[str]
    hash: str | None
    spec: Spec | None
    estimate: Estimate | None
