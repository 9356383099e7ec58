"""Evidence: signed receipts about a worker, and what an audit found."""

from typing import Literal

from pydantic import with_config
from typing_extensions import TypedDict

from pluralis_lab.server.shapes.base import EXACT


@with_config(EXACT)
class Receipt(TypedDict):
    """A signed statement about one worker's work of one kind in one round."""

    epoch: int
    kind: Literal["forward", "backward", "contribution"]
    round: int
    worker: str
    signer: str
    signer_participant: str
    micro_batches: int
    tokens: int
    norm: float | None
    agreement: float | None
    digest: str


@with_config(EXACT)
class ReceiptPage(TypedDict):
    """Receipts, newest first; `total` counts all about that worker."""

    receipts: list[Receipt]
    total: int


@with_config(EXACT)
class Finding(TypedDict):
    """One fault or note of an audit."""

    kind: str
    epoch: int | None
    subject: str
    detail: str


@with_config(EXACT)
class AuditShare(TypedDict):
    """A participant's recomputed part of an epoch; `share` is the exact fraction."""

    epoch: int
    participant: str
    units: str
    share: str
    percent: float


@with_config(EXACT)
class AuditReply(TypedDict):
    """What came of computing every share again from the public evidence."""

    ok: bool
    verdict: str
    findings: list[Finding]
    notes: list[Finding]
    epochs: int
    statements: int
    attestations: int
    unattested_units: str
    ownership: list[AuditShare]
    seconds: float
