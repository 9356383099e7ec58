import copy
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralis_lab.contributions.closing import close_epoch
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.receipts import statement_hash


@pytest.fixture
def evidence(grid):
    """Two closed epochs of an honest run, each test its own copy."""
    closes, lines = grid.evidence(2)
    return closes, lines


@pytest.fixture(scope="module")
def closed(grid):
    closes, lines = grid.evidence(1)
    return SimpleNamespace(closes=closes, lines=lines[0])


def kinds(report):
    return [finding.kind for finding in report.findings]


def named(finding):
    return tuple(finding.statement[field] for field in ("hash", "kind", "round", "worker", "signer"))


def name_of(line):
    body = line["body"]
    return statement_hash(line), body["kind"], body["round"], body["worker"], body["signer"]


@pytest.mark.parametrize(("stages", "replicas"), [(3, 2), (1, 1), (3, 1), (1, 2), (2, 3)])
def test_an_honest_run_is_in_order(paper_run, stages, replicas):
    run = paper_run(stages, replicas)
    closes, lines = run.evidence(3)
    report = run.audit(closes, lines)
    assert report.ok, str(report)
    assert (report.notes, len(report.tables), report.num_attestations) == ((), 3, 9)
    assert "in order" in str(report)


def test_a_run_that_lost_a_worker_and_routed_anew_is_in_order(grid):
    lines = grid.statements(0, dead=lambda round: {"worker-2"})
    lines.append(grid.receipt("backward", 0, "worker-3", "worker-0", range(4), salt="re-routed"))
    report = grid.audit([grid.close(0, lines)], {0: lines})
    assert report.ok, str(report)
    assert {note.kind for note in report.notes} == {"duplicate"}
    assert "had no other replica" in str(report)


def leaves_of(value, path=()):
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves_of(child, (*path, key))
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from leaves_of(child, (*path, position))
    else:
        yield path, value


def tamper(value, rng):
    if isinstance(value, str):
        position = rng.randrange(len(value))
        other = rng.choice([c for c in "0123456789abcdefx-" if c != value[position]])
        return value[:position] + other + value[position + 1 :]
    if isinstance(value, float):
        return value / 2
    if isinstance(value, int):
        return value + rng.choice([-1, 1])
    return 0.5


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_change_of_any_field_of_any_statement_is_found_and_the_statement_named(grid, closed, seed):
    rng = random.Random(seed)
    lines = copy.deepcopy(closed.lines)
    position = rng.randrange(len(lines))
    path, value = rng.choice(list(leaves_of(lines[position])))
    target = lines[position]
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = tamper(value, rng)
    report = grid.audit(closed.closes, {0: lines})
    assert not report.ok
    first = report.findings[0]
    assert first.kind in {"forged", "malformed", "foreign-run", "unauthorised", "replayed"}
    assert first.statement["hash"] == statement_hash(lines[position])
    missing = next(finding for finding in report.findings if finding.kind == "missing")
    assert named(missing) == name_of(closed.lines[position])


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 10**6))
def test_a_missing_statement_is_named_exactly(grid, closed, position):
    position %= len(closed.lines)
    report = grid.audit(closed.closes, {0: closed.lines[:position] + closed.lines[position + 1 :]})
    assert report.findings[0].kind == "missing"
    assert named(report.findings[0]) == name_of(closed.lines[position])
    for part in map(str, name_of(closed.lines[position])):
        assert part in str(report)


def test_a_forged_statement_is_named_exactly_and_comes_first(grid, evidence):
    closes, lines = evidence
    forged = grid.receipt("forward", 1, "worker-0", "worker-2", [0], signer_key=HotKey.from_seed(b"thief"))
    lines[0].insert(5, forged)
    report = grid.audit(closes, lines)
    assert kinds(report) == ["forged"]
    assert named(report.findings[0]) == name_of(forged)
    assert report.findings[0].epoch == 0
    for part in map(str, name_of(forged)):
        assert part in report.findings[0].subject


def test_a_forged_statement_that_was_closed_over_is_named_and_the_root_is_wrong(grid):
    """All attesters collude: they close over work that nobody did, in the name of an honest counter-signer."""
    lines = grid.statements(0)
    thief = HotKey.from_seed(b"thief")
    forged = grid.receipt("contribution", 0, "worker-0", "worker-1", range(4), salt="x", signer_key=thief)
    close = grid.close(0, lines)
    close["statements"] = sorted([*close["statements"], statement_hash(forged)])
    position = close["statements"].index(statement_hash(forged))
    close["listing"].insert(position, ["contribution", 0, "worker-0", "worker-1"])
    report = grid.audit([grid.attest(close)], {0: [*lines, forged]})
    assert kinds(report)[0] == "forged"
    assert named(report.findings[0]) == name_of(forged)
    assert "wrong-root" in kinds(report)


def test_a_statement_of_an_earlier_epoch_is_a_replay(grid, evidence):
    closes, lines = evidence
    lines[1].append(lines[0][3])
    report = grid.audit(closes, lines)
    assert kinds(report) == ["replayed", "replayed"]
    assert named(report.findings[0]) == name_of(lines[0][3])
    assert {finding.epoch for finding in report.findings} == {1}


def test_a_statement_of_another_run_is_refused_also_when_it_has_the_same_workers_and_keys(grid, evidence):
    closes, lines = evidence
    foreign = grid.receipt("forward", 0, "worker-0", "worker-2", [0], run="ee" * 32)
    lines[0].append(foreign)
    report = grid.audit(closes, lines)
    assert kinds(report) == ["foreign-run"]
    assert named(report.findings[0]) == name_of(foreign)


def test_the_evidence_of_another_run_is_no_evidence_of_this_one(paper_run, grid):
    closes, lines = paper_run(3, 2, name="other").evidence(1)
    report = grid.audit(closes, lines)
    assert set(kinds(report)) == {"foreign-run"}
    assert len(report.findings) == 1 + len(lines[0])


def test_a_line_that_stands_twice_is_a_duplicate(grid, evidence):
    closes, lines = evidence
    lines[0].append(lines[0][0])
    assert kinds(grid.audit(closes, lines)) == ["duplicate"]


def test_a_worker_without_an_authorisation_is_found(paper_run, evidence):
    run = paper_run(3, 2)
    run.authorisations[0]["signature"] = run.authorisations[1]["signature"]
    report = run.audit(*evidence)
    assert report.findings[0].kind == "unauthorised"
    assert "worker-0" in report.findings[0].subject
    assert report.findings[0].epoch is None


def test_garbage_is_malformed_and_breaks_nothing(grid, evidence):
    closes, lines = evidence
    garbage = [
        None,
        7,
        "x",
        [],
        {},
        {"body": {"round": 1, "worker": ["x"]}, "signature": 1},
        {"body": float("nan"), "signature": ""},
    ]
    lines[0] += garbage
    report = grid.audit([*closes, None, {"epoch": "0"}, {"epoch": 10**30}], lines)
    assert kinds(report) == ["malformed"] * (3 + len(garbage))
    assert str(report)
    assert report._repr_html_()


@pytest.mark.parametrize(
    ("field", "change", "expected"),
    [
        ("root", lambda old: "0x" + "11" * 32, ["wrong-root"]),
        ("data_hash", lambda old: "22" * 32, ["wrong-root", "wrong-root"]),
        ("model_hash", lambda old: "33" * 32, ["wrong-root"]),
        ("state_digests", lambda old: old[:2], ["wrong-root"]),
        ("shares", lambda old: {"lab-a": [1, 1]}, ["wrong-shares"]),
        ("amounts", lambda old: [[0, old[0][1], str(10**24)]], ["wrong-shares"]),
        ("listing", lambda old: [[*entry[:3], "worker-9"] for entry in old], ["malformed"]),
    ],
)
def test_a_close_that_does_not_follow_is_found_though_a_quorum_signed_it(grid, evidence, field, change, expected):
    closes, lines = evidence
    closes[0] = grid.attest({**closes[0], field: change(closes[0][field])})
    report = grid.audit(closes, lines)
    assert kinds(report)[: len(expected)] == expected
    assert set(kinds(report)) == set(expected)


def test_amounts_and_root_that_fit_each_other_and_not_the_work_are_found(paper_run, grid, evidence):
    closes, lines = evidence
    without = [line for line in lines[0] if line["body"]["worker"] != "worker-5"]
    other = close_epoch(grid.shape, 0, without, grid.authorisations, grid.digests)
    closes[0] = grid.attest({**closes[0], **{name: other[name] for name in ("shares", "amounts", "root")}})
    assert kinds(grid.audit(closes, lines)) == ["wrong-shares", "wrong-shares", "wrong-root"]


@pytest.mark.parametrize(
    ("signed", "quorum", "ok"), [(3, None, True), (2, None, False), (2, 2, True), (0, 1, False), (0, 0, True)]
)
def test_it_takes_a_quorum_of_attesters(grid, closed, signed, quorum, ok):
    close = grid.attest(closed.closes[0], sorted(grid.shape.attesters)[:signed])
    report = grid.audit([close], {0: closed.lines}, quorum=quorum)
    assert kinds(report) == ([] if ok else ["no-quorum"])
    assert report.num_attestations == signed


@pytest.mark.parametrize("change", ["other-epoch", "other-attester", "stranger", "address", "garbage", "twice"])
def test_a_bad_attestation_is_named_and_does_not_count(grid, evidence, change):
    closes, lines = evidence
    attestations = closes[1]["attestations"]
    if change == "other-epoch":
        attestations[0] = closes[0]["attestations"][0]
    elif change == "other-attester":
        attestations[0]["signature"] = attestations[1]["signature"]
    elif change == "stranger":
        attestations[0]["attester"] = "lab-z"
    elif change == "address":
        attestations[0]["address"] = attestations[1]["address"]
    elif change == "garbage":
        attestations[0] = {"attester": ["x"], "signature": {}}
    else:
        attestations[0] = dict(attestations[1])
    report = grid.audit(closes, lines)
    assert kinds(report) == (["no-quorum"] if change == "twice" else ["bad-attestation", "no-quorum"])
    assert {finding.epoch for finding in report.findings} == {1}


def test_a_gap_between_closed_epochs_is_missing(grid):
    closes, lines = grid.evidence(3)
    report = grid.audit([closes[0], closes[2]], lines)
    assert kinds(report) == ["missing"]
    assert report.findings[0].epoch == 1


def test_an_epoch_that_is_closed_twice_is_found(grid, evidence):
    closes, lines = evidence
    assert kinds(grid.audit([*closes, closes[1]], lines)) == ["duplicate"]


def test_late_statements_and_an_open_epoch_are_notes_and_pay_nothing(grid, evidence):
    closes, lines = evidence
    late = grid.receipt("forward", 0, "worker-1", "worker-2", [0], salt="late")
    lines[0].append(late)
    report = grid.audit(closes[:1], lines)
    assert report.ok, str(report)
    assert [note.kind for note in report.notes] == ["late", "open"]
    assert report.tables == grid.audit(closes[:1], {0: lines[0][:-1]}).tables


def test_the_report_reads_well(grid, evidence):
    closes, lines = evidence
    report = grid.audit(closes, lines)
    assert list(report.table["worker"]) == [f"worker-{i}" for i in range(6)] * 2
    assert report.ownership.groupby("epoch")["percent"].sum().round(9).tolist() == [100.0, 100.0]
    assert "lab-a" in str(report)
    assert "<table>" in report._repr_html_()
    lines[0][0] = {"body": {"worker": "<script>alert(1)</script>"}, "signature": ""}
    report = grid.audit(closes, lines)
    assert str(report).splitlines()[0].startswith(f"Audit of run {grid.shape.run_id[:8]}: ")
    assert "<script>" not in report._repr_html_()
    assert "faults" in str(report)


def test_nothing_to_audit_is_said_so(grid):
    report = grid.audit([], {})
    assert report.ok
    assert "0 closed epochs" in str(report)
    assert report.table.empty
