import copy
import json
import math

import pytest

from pluralis_lab.canonical import canonical_json, digest
from pluralis_lab.contributions.keys import HotKey, recover
from pluralis_lab.contributions.receipts import Statement, sign_receipt, sign_work, statement_hash, verify_receipt, verify_work
from pluralis_lab.errors import EvidenceError

WORKER, SIGNER = HotKey.from_seed(b"worker"), HotKey.from_seed(b"signer")
RUN, DIGEST = "ab" * 32, "cd" * 32


def work(kind="contribution", indices=(3, 1), **changes):
    at = {"run": RUN, "round": 7, "kind": kind, "stage": 1, "worker": "worker-2", "indices": indices, "tokens": 64} | changes
    return sign_work(WORKER, **at, digest=DIGEST)


def receipt(kind="contribution", items=None, **changes):
    at = {"run": RUN, "epoch": 0, "round": 7, "stage": 1, "worker": "worker-2", "signer": "worker-3"} | changes
    return sign_receipt(SIGNER, kind=kind, items=items or [work(kind)], **at)


def test_a_work_item_is_signed_over_the_canonical_json_of_the_interface():
    item = work()
    message = {"kind": "contribution", "run": RUN, "round": 7, "stage": 1, "worker": "worker-2"}
    message |= {"indices": [1, 3], "tokens": 64, "digest": DIGEST}
    assert item.keys() == {"indices", "tokens", "digest", "signature"}
    assert recover(canonical_json(message), item["signature"]) == WORKER.address


def test_a_receipt_has_the_body_of_the_interface_and_is_signed_over_it():
    line = receipt(norm=2, agreement=-0.5)
    assert line["body"] == {
        "type": "receipt", "kind": "contribution", "run": RUN, "epoch": 0, "round": 7, "stage": 1, "worker": "worker-2",
        "signer": "worker-3", "items": [work()], "norm": 2.0, "agreement": -0.5,
    }  # fmt: skip
    assert recover(canonical_json(line["body"]), line["signature"]) == SIGNER.address


def test_a_receipt_verifies_against_both_keys_and_no_others():
    line = receipt()
    assert verify_receipt(line, SIGNER.address, WORKER.address).worker == "worker-2"
    with pytest.raises(EvidenceError, match="is signed by"):
        verify_receipt(line, WORKER.address, WORKER.address)
    with pytest.raises(EvidenceError, match=r"indices \[1, 3\]"):
        verify_receipt(line, SIGNER.address, SIGNER.address)


def test_work_is_verified_for_the_round_and_worker_it_was_signed_for():
    item = work()
    at = {"run": RUN, "round": 7, "kind": "contribution", "stage": 1, "worker": "worker-2"}
    assert verify_work(item, WORKER.address, **at).indices == (1, 3)
    for change in ({"round": 8}, {"worker": "worker-3"}, {"run": "00" * 32}, {"kind": "forward"}, {"stage": 0}):
        with pytest.raises(EvidenceError, match="is signed by"):
            verify_work(item, WORKER.address, **(at | change))


def test_a_statement_survives_json_and_keeps_its_hash():
    line = receipt(norm=0.1, agreement=None)
    again = json.loads(json.dumps(line, indent=2))
    statement = Statement.parse(again)
    assert statement.to_dict() == line
    assert statement.hash == statement_hash(line) == digest(canonical_json(line))


def test_items_are_ordered_so_that_the_same_work_gives_the_same_statement():
    items = [work("forward", [i]) for i in (2, 0, 1)]
    assert receipt("forward", items) == receipt("forward", items[::-1])


def spoilt(path, value):
    line = copy.deepcopy(receipt(norm=1.0, agreement=0.5))
    *parents, last = path
    target = line
    for step in parents:
        target = target[step]
    target[last] = value
    return line


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("body", "type"), "payment", "body.type"),
        (("body", "kind"), "sideward", "body.kind"),
        (("body", "kind"), ["forward"], "body.kind"),
        (("body", "kind"), "forward", "body.norm"),
        (("body", "run"), RUN[:-1], "body.run"),
        (("body", "run"), RUN.upper(), "body.run"),
        (("body", "epoch"), -1, "body.epoch"),
        (("body", "epoch"), True, "body.epoch"),
        (("body", "round"), 1.0, "body.round"),
        (("body", "stage"), "1", "body.stage"),
        (("body", "stage"), 2**63, "body.stage"),
        (("body", "worker"), "", "body.worker"),
        (("body", "signer"), 3, "body.signer"),
        (("body", "items"), [], "body.items"),
        (("body", "items"), {}, "body.items"),
        (("body", "items", 0), None, r"body.items\[0\]"),
        (("body", "items", 0, "indices"), [], r"items\[0\].indices"),
        (("body", "items", 0, "indices"), [3, 1], r"items\[0\].indices"),
        (("body", "items", 0, "indices"), [1, 1], r"items\[0\].indices"),
        (("body", "items", 0, "tokens"), 1.5, r"items\[0\].tokens"),
        (("body", "items", 0, "digest"), "cd", r"items\[0\].digest"),
        (("body", "items", 0, "signature"), "0x", r"items\[0\].signature"),
        (("body", "items", 0, "note"), "hi", "unknown 'note'"),
        (("body", "norm"), -1.0, "body.norm"),
        (("body", "norm"), math.inf, "body.norm"),
        (("body", "norm"), 1, "body.norm"),
        (("body", "agreement"), 1.1, "body.agreement"),
        (("body", "agreement"), math.nan, "body.agreement"),
        (("body", "tip"), 1, "unknown 'tip'"),
        (("signature",), "0x12", "signature"),
        (("extra",), 1, "unknown 'extra'"),
        (("body",), None, "body"),
    ],
)
def test_a_malformed_statement_is_refused_by_the_name_of_its_field(path, value, field):
    with pytest.raises(EvidenceError, match=field):
        Statement.parse(spoilt(path, value))


@pytest.mark.parametrize("field", ["type", "kind", "run", "epoch", "items", "norm", "signer"])
def test_a_missing_field_is_named(field):
    line = receipt()
    del line["body"][field]
    with pytest.raises(EvidenceError, match=f"no {field}"):
        Statement.parse(line)


@pytest.mark.parametrize("garbage", [None, 3, "x", [], {}, {"body": {}}, {"body": {1: 2}, "signature": "0x"}])
def test_garbage_is_refused(garbage):
    with pytest.raises(EvidenceError):
        Statement.parse(garbage)


def test_what_would_not_be_accepted_is_not_signed():
    for problem in ({"norm": math.nan}, {"agreement": 2.0}, {"round": -1}):
        with pytest.raises(EvidenceError):
            receipt(**problem)
    with pytest.raises(EvidenceError, match="null on a forward"):
        receipt("forward", norm=1.0)
    with pytest.raises(EvidenceError, match="indices"):
        work(indices=[])
