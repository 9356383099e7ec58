"""How a worker signs what it did and checks what others signed: a seam, for plans of a thousand workers that sign nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pluralis_lab.contributions.receipts import WorkItem, sign_receipt, sign_work, verify_work


@dataclass(frozen=True)
class Signing:
    """The functions of `contributions.receipts`; an engine in which nothing is at stake may put others of the same form here."""

    sign_work: Callable[..., dict[str, Any]] = sign_work
    sign_receipt: Callable[..., dict[str, Any]] = sign_receipt
    verify_work: Callable[..., WorkItem] = verify_work


SIGNING = Signing()
