"""Evidence: a torn last line was never promised, a damaged one is named, and nothing that was written is thrown away."""

import json

import pytest

from pluralis_lab.errors import StoreError
from pluralis_lab.store.evidence import EvidenceFolder


@pytest.fixture
def folder(tmp_path):
    return EvidenceFolder(tmp_path)


def lines(*numbers, epoch=0):
    return [{"body": {"n": n, "epoch": epoch}, "signature": f"0x{n:02x}"} for n in numbers]


def test_lines_come_back_in_order_from_their_files(folder):
    folder.append_statements(0, lines(1, 2))
    folder.append_statements(0, lines(3))
    folder.append_statements(10, lines(4))
    folder.append_statements(2, lines(5))
    folder.append_authorisations([{"worker": "worker-0"}])
    folder.append_close({"epoch": 0, "root": "0x"})
    assert folder.statements(0) == lines(1, 2, 3)
    assert list(folder.statements_by_epoch()) == [0, 2, 10]
    assert folder.authorisations() == [{"worker": "worker-0"}]
    assert folder.closes() == [{"epoch": 0, "root": "0x"}]
    assert folder.statements(99) == []


def test_a_close_has_the_signatures_that_came_later_each_once(folder):
    def signed(attester, signature="0x1"):
        return {"attester": attester, "address": f"0x{attester}", "signature": signature}

    folder.append_close({"epoch": 0, "root": "0x", "attestations": [signed("a")]})
    folder.append_close({"epoch": 1, "root": "0x", "attestations": []})
    for attester in ("b", "a", "b"):
        folder.append_attestation(0, **signed(attester, "0x2"))
    folder.append_attestation(1, **signed("a"))
    assert [close["attestations"] for close in folder.closes()] == [[signed("a"), signed("b", "0x2")], [signed("a")]]


def test_every_line_is_canonical(folder):
    folder.append_statements(0, [{"b": "é", "a": {"d": 1, "c": 2}}])
    assert (folder.path / "epoch-0.jsonl").read_bytes() == b'{"a":{"c":2,"d":1},"b":"\\u00e9"}\n'


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_half_a_last_line_is_not_read_and_the_next_one_does_not_run_into_it(cut, folder):
    folder.append_statements(0, lines(1, 2))
    file = folder.path / "epoch-0.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert folder.statements(0) == lines(1)
    folder.append_statements(0, lines(3))  # a run that goes on after its writer was killed
    assert folder.statements(0) == lines(1, 3)
    assert file.read_bytes().endswith(b"\n")


def test_a_first_line_that_was_cut_leaves_an_empty_file(folder):
    (folder.path / "closes.jsonl").write_bytes(b'{"epoch":')
    assert folder.closes() == []
    folder.append_close({"epoch": 0})
    assert folder.closes() == [{"epoch": 0}]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_line_is_named(number, folder):
    folder.append_statements(4, lines(1, 2, 3))
    file = folder.path / "epoch-4.jsonl"
    damaged = file.read_bytes().split(b"\n")
    damaged[number - 1] = damaged[number - 1][:-4] + b"\xff"
    file.write_bytes(b"\n".join(damaged))
    with pytest.raises(StoreError, match=rf"epoch-4\.jsonl, line {number} is not JSON"):
        folder.statements(4)
    with pytest.raises(StoreError, match=rf"line {number}"):
        folder.statements_by_epoch()


def test_a_rewind_keeps_what_it_sets_aside(folder):
    for epoch in range(4):
        folder.append_statements(epoch, lines(epoch, 10 + epoch, epoch=epoch))
    folder.rewind(first_epoch=2)
    assert folder.statements_by_epoch() == {0: lines(0, 10), 1: lines(1, 11, epoch=1)}
    folder.append_statements(2, lines(2, 7))
    folder.rewind(first_epoch=2)
    assert list(folder.statements_by_epoch()) == [0, 1]

    def aside(name):
        return [json.loads(line) for line in (folder.path / name).read_bytes().splitlines()]

    assert aside("epoch-2.jsonl.superseded-0") == lines(2, 12, epoch=2)
    assert aside("epoch-3.jsonl.superseded-0") == lines(3, 13, epoch=3)
    assert aside("epoch-2.jsonl.superseded-1") == lines(2, 7)


def test_nan_never_becomes_evidence(folder):
    with pytest.raises(ValueError, match="JSON compliant"):
        folder.append_statements(0, [{"norm": 1.0}, {"norm": float("nan")}])
    assert folder.statements(0) == []
