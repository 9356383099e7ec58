"""Receipts: what a worker signs for each piece of work that it sends, and what the neighbour that used it signs."""

import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from pluralis_lab.canonical import canonical_json, digest
from pluralis_lab.contributions.fields import count_field, name_field, object_fields, real_field, shown, text_field
from pluralis_lab.contributions.keys import HotKey, recover
from pluralis_lab.errors import EvidenceError

Kind = Literal["forward", "backward", "contribution"]
ItemKind = Literal["forward", "backward", "contribution", "local_step"]
"""What a worker signs itself. A "local_step" tells replicas what it will step with, or how far it came; nobody receipts it."""

KINDS: tuple[Kind, ...] = ("forward", "backward", "contribution")

_HEX64 = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"0x[0-9a-f]{130}")
_BODY_FIELDS = {
    "type", "kind", "run", "epoch", "round", "stage", "worker", "signer", "items", "norm", "agreement",
}  # fmt: skip
_ITEM_FIELDS = {"indices", "tokens", "digest", "signature"}


@dataclass(frozen=True)
class WorkItem:
    """One piece of work that a worker sent and signed: an activation, an input gradient or a weight gradient.

    kind, run, round, stage, worker : what was done, in which run and round, by whom (`stage` is the worker's)
    indices : the micro-batch indices of the round that it covers, ascending; none only of a "local_step"
    tokens : counted in those micro-batches; digest : SHA-256 of the bytes that were sent
    signature : the worker's, over keccak256 of `message`
    """

    kind: ItemKind
    run: str
    round: int
    stage: int
    worker: str
    indices: tuple[int, ...]
    tokens: int
    digest: str
    signature: str

    @property
    def message(self) -> bytes:
        """The canonical JSON that the worker signs."""
        return _work_message(self.run, self.round, self.kind, self.stage, self.worker, self.indices, self.tokens, self.digest)

    def recover(self) -> str:
        """Return the address that signed this item. Raises EvidenceError for a malformed signature."""
        return _signer_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the item as it stands in a statement, which names the rest."""
        return {
            "indices": list(self.indices),
            "tokens": self.tokens,
            "digest": self.digest,
            "signature": self.signature,
        }


@functools.lru_cache(maxsize=4096)
def _signer_of(item: WorkItem) -> str:
    """Recover who signed `item`; cached, because the same one comes to many: relayed, and in what each of them signs for it."""
    return recover(item.message, item.signature)


@dataclass(frozen=True)
class Statement:
    """A counter-signed tally: all that `signer` received and used of one `kind` from `worker` in one round.

    forward is signed by the next stage that used the activation, backward by the previous stage that used the gradient,
    contribution by a replica of the same stage that received the weight gradient (algorithms.md, "Receipts").

    norm, agreement : on a contribution, the gradient's norm and its cosine with the other replicas' mean; else None
    """

    kind: Kind
    run: str
    epoch: int
    round: int
    stage: int
    worker: str
    signer: str
    items: tuple[WorkItem, ...]
    norm: float | None
    agreement: float | None
    signature: str

    @classmethod
    def parse(cls, line: object) -> "Statement":
        """Read `{"body", "signature"}`, as it stands in the evidence.

        Raises EvidenceError that names the field for anything missing, unknown, of another type or out of range; no
        signature is verified yet.
        """
        fields = object_fields(line, {"body", "signature"}, "statement")
        body = object_fields(fields["body"], _BODY_FIELDS, "body")
        if body["type"] != "receipt":
            raise EvidenceError(f"body.type={shown(body['type'])}; it is 'receipt'")
        kind = body["kind"]
        if kind not in KINDS:
            raise EvidenceError(f"body.kind={shown(kind)}; it is one of {', '.join(KINDS)}")
        kind = cast(Kind, kind)
        run = text_field(body["run"], _HEX64, "body.run", "64 lower-case hexadecimal digits")
        numbers = {name: count_field(body[name], f"body.{name}") for name in ("epoch", "round", "stage")}
        worker, signer = (name_field(body[name], f"body.{name}") for name in ("worker", "signer"))
        if not isinstance(body["items"], list) or not body["items"]:
            raise EvidenceError(f"body.items={shown(body['items'])}; it is a list of at least one item")
        items = tuple(
            _parse_item(item, f"body.items[{i}]", kind, run, numbers["round"], numbers["stage"], worker)
            for i, item in enumerate(body["items"])
        )
        norm = real_field(body["norm"], "body.norm", 0.0, math.inf)
        agreement = real_field(body["agreement"], "body.agreement", -1.0, 1.0)
        if kind != "contribution" and (norm is not None or agreement is not None):
            raise EvidenceError(f"body.norm={norm}, body.agreement={agreement}; they are null on a {kind} receipt")
        signature = text_field(fields["signature"], _SIGNATURE, "signature", "0x and 130 lower-case hexadecimal digits")
        return cls(
            kind=kind,
            run=run,
            epoch=numbers["epoch"],
            round=numbers["round"],
            stage=numbers["stage"],
            worker=worker,
            signer=signer,
            items=items,
            norm=norm,
            agreement=agreement,
            signature=signature,
        )

    @cached_property
    def message(self) -> bytes:
        """The canonical JSON of the body, over whose keccak256 the signer signs."""
        return canonical_json(self._body())

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the whole statement, signature included: its name in an epoch's close."""
        return statement_hash(self.to_dict())

    @property
    def tokens(self) -> int:
        """Tokens over all items, as claimed."""
        return sum(item.tokens for item in self.items)

    def recover(self) -> str:
        """Return the address that counter-signed. Raises EvidenceError for a malformed signature."""
        return recover(self.message, self.signature)

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence line `{"body", "signature"}`."""
        return {"body": self._body(), "signature": self.signature}

    def __str__(self) -> str:
        return (
            f"{self.kind} of {self.worker} (stage {self.stage}) in round {self.round}, "
            f"counter-signed by {self.signer}, {self.hash[:16]}"
        )

    def _body(self) -> dict[str, Any]:
        return {
            "type": "receipt",
            "kind": self.kind,
            "run": self.run,
            "epoch": self.epoch,
            "round": self.round,
            "stage": self.stage,
            "worker": self.worker,
            "signer": self.signer,
            "items": [item.to_dict() for item in self.items],
            "norm": self.norm,
            "agreement": self.agreement,
        }


def sign_work(
    key: HotKey,
    run: str,
    round: int,
    kind: ItemKind,
    stage: int,
    worker: str,
    indices: Sequence[int],
    tokens: int,
    digest: str,
) -> dict[str, Any]:
    """Return the item `{"indices", "tokens", "digest", "signature"}` that travels with the work it describes.

    Raises EvidenceError when it would not pass `Statement.parse` at the receiver.
    """
    ordered = sorted(indices)
    signature = key.sign(_work_message(run, round, kind, stage, worker, ordered, tokens, digest))
    item = {"indices": ordered, "tokens": tokens, "digest": digest, "signature": signature}
    return _parse_item(item, "item", kind, run, round, stage, worker).to_dict()


def verify_work(item: object, address: str, run: str, round: int, kind: ItemKind, stage: int, worker: str) -> WorkItem:
    """Return the parsed item when `address`, the worker's authorised key, signed it; what a receiver checks first.

    Raises EvidenceError when it is malformed or signed by another key.
    """
    work = _parse_item(item, "item", kind, run, round, stage, worker)
    if work.recover() != address:
        raise EvidenceError(f"{kind} work of {worker} in round {round} is signed by {work.recover()}, not by {address}")
    return work


def sign_receipt(
    key: HotKey,
    *,
    kind: Kind,
    run: str,
    epoch: int,
    round: int,
    stage: int,
    worker: str,
    signer: str,
    items: Sequence[Mapping[str, Any]],
    norm: float | None = None,
    agreement: float | None = None,
) -> dict[str, Any]:
    """Return the signed statement `{"body", "signature"}` over `items` that `worker`, at `stage`, sent to `signer`.

    norm, agreement : only with kind "contribution"; None where they are undefined
    Raises EvidenceError when it would not pass `Statement.parse`.
    """
    body = {
        "type": "receipt",
        "kind": kind,
        "run": run,
        "epoch": epoch,
        "round": round,
        "stage": stage,
        "worker": worker,
        "signer": signer,
        "items": [dict(item) for item in sorted(items, key=lambda item: list(item["indices"]))],
        "norm": None if norm is None else float(norm),
        "agreement": None if agreement is None else float(agreement),
    }
    unsigned = Statement.parse({"body": body, "signature": "0x" + "00" * 65})
    return {"body": body, "signature": key.sign(unsigned.message)}


def verify_receipt(line: object, signer_address: str, worker_address: str) -> Statement:
    """Return the parsed statement when both signatures are those of the given keys.

    Raises EvidenceError when it is malformed, or which signature is by another key.
    """
    statement = Statement.parse(line)
    if statement.recover() != signer_address:
        raise EvidenceError(f"statement {statement} is signed by {statement.recover()}, not by {signer_address}")
    for item in statement.items:
        if item.recover() != worker_address:
            raise EvidenceError(
                f"statement {statement}: the item over indices {list(item.indices)} is signed by {item.recover()}, "
                f"not by {worker_address}"
            )
    return statement


def statement_hash(line: Mapping[str, Any]) -> str:
    """Return SHA-256 over the canonical JSON of `{"body", "signature"}`, 64 hexadecimal digits.

    Raises EvidenceError when `line` has no canonical JSON.
    """
    try:
        return digest(canonical_json({"body": line["body"], "signature": line["signature"]}))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EvidenceError(f"statement has no canonical form: {error!r}") from error


def _work_message(
    run: str, round: int, kind: str, stage: int, worker: str, indices: Sequence[int], tokens: int, digest: str
) -> bytes:
    return canonical_json(
        {
            "kind": kind,
            "run": run,
            "round": round,
            "stage": stage,
            "worker": worker,
            "indices": list(indices),
            "tokens": tokens,
            "digest": digest,
        }
    )


def _parse_item(item: object, where: str, kind: ItemKind, run: str, round: int, stage: int, worker: str) -> WorkItem:
    fields = object_fields(item, _ITEM_FIELDS, where)
    indices = fields["indices"]
    if not isinstance(indices, list) or not (indices or kind == "local_step"):
        raise EvidenceError(f"{where}.indices={shown(indices)}; it is a list of at least one index")
    for index in indices:
        count_field(index, f"{where}.indices")
    if any(a >= b for a, b in itertools.pairwise(indices)):
        raise EvidenceError(f"{where}.indices={shown(indices)}; they ascend, each once")
    return WorkItem(
        kind=kind,
        run=run,
        round=round,
        stage=stage,
        worker=worker,
        indices=tuple(indices),
        tokens=count_field(fields["tokens"], f"{where}.tokens"),
        digest=text_field(fields["digest"], _HEX64, f"{where}.digest", "64 lower-case hexadecimal digits"),
        signature=text_field(fields["signature"], _SIGNATURE, f"{where}.signature", "0x and 130 lower-case hexadecimal digits"),
    )
