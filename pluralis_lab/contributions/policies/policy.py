"""The one signature that every policy has."""

from typing import Protocol

from pluralis_lab.contributions.receipts import Kind


class Policy(Protocol):
    """Returns the units of work for `tokens` tokens of one kind at one stage."""

    def __call__(self, kind: Kind, stage: int, num_stages: int, tokens: int, stage_flops: int) -> int: ...
