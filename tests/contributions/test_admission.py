import pytest

from pluralis_lab.contributions.admission import Admission
from pluralis_lab.contributions.findings import RefusedError
from pluralis_lab.contributions.keys import HotKey

STRANGER = HotKey.from_seed(b"stranger")


def refusal(run, line, epoch=0):
    with pytest.raises(RefusedError) as raised:
        Admission(run.shape, run.authorisations).admit(epoch, line)
    return raised.value


def test_every_honest_statement_is_admitted(grid):
    admitted, findings = Admission(grid.shape, grid.authorisations).screen(0, grid.statements(0))
    assert len(admitted) == len(grid.statements(0))
    assert findings == []


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"signer_key": STRANGER}, "forged", "counter-signature is by"),
        ({"worker_key": STRANGER}, "forged", r"worker's signature over indices \[0\]"),
        ({"run": "ee" * 32}, "foreign-run", "ee"),
        ({"epoch": 1}, "replayed", "epoch 1"),
        ({"round": 2, "epoch": 0}, "malformed", "round 2"),
        ({"indices": [4]}, "malformed", "index 4"),
        ({"tokens": 33}, "malformed", "33 tokens"),
        ({"stage": 1}, "malformed", "worker-0 is at stage 0"),
        ({"signer": "worker-4"}, "unauthorised", "worker-4 is at stage 2"),
        ({"signer": "worker-0"}, "unauthorised", "signed at stage 1"),
        ({"kind": "backward"}, "unauthorised", "consumed by no stage"),
        ({"kind": "contribution"}, "unauthorised", "signed at stage 0"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else None,
)
def test_a_statement_that_does_not_count_is_refused_with_its_kind(grid, change, kind, reason):
    change = dict(change)
    signer = change.pop("signer", "worker-2")
    if signer != "worker-2":
        change["signer_key"] = grid.keys[signer]
    line = grid.receipt(
        change.pop("kind", "forward"), change.pop("round", 0), "worker-0", signer, change.pop("indices", [0]), **change
    )
    refused = refusal(grid, line)
    assert refused.kind == kind
    assert refused.args[0]
    with pytest.raises(RefusedError, match=reason):
        raise refused


def test_a_worker_without_an_authorised_key_is_nobody(paper_run):
    run = paper_run(2, 2)
    line = run.receipt("forward", 0, "worker-0", "worker-2", [0])
    run.authorisations = [a for a in run.authorisations if a["worker"] != "worker-0"]
    assert refusal(run, line).kind == "unauthorised"


def test_workers_that_the_run_does_not_have_are_nobody(grid):
    line = grid.receipt("forward", 0, "worker-0", "worker-2", [0])
    line["body"]["signer"] = "worker-99"
    assert refusal(grid, line).kind == "unauthorised"


def test_a_replaced_key_counts_beside_the_lost_one(paper_run):
    run = paper_run(2, 2)
    new = HotKey.from_seed(b"replacement")
    old_line = run.receipt("forward", 0, "worker-0", "worker-2", [0])
    new_line = run.receipt("forward", 1, "worker-0", "worker-2", [0], worker_key=new)
    assert refusal(run, new_line).kind == "forged"
    run.authorisations.append(run.authorise("worker-0", new))
    admitted, findings = Admission(run.shape, run.authorisations).screen(0, [old_line, new_line])
    assert len(admitted) == 2
    assert findings == []


def test_the_same_line_twice_is_a_finding_and_counts_once(grid):
    line = grid.receipt("forward", 0, "worker-0", "worker-2", [0])
    admitted, findings = Admission(grid.shape, grid.authorisations).screen(0, [line, line])
    assert len(admitted) == 1
    assert [finding.kind for finding in findings] == ["duplicate"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run": "ee" * 32}, "for run"),
        ({"worker": "worker-9"}, "no worker"),
        ({"worker": "worker-1"}, "belongs to"),
        ({"participant": "lab-b"}, "belongs to"),
        ({"key": STRANGER.address}, "signed by"),
        ({"key": STRANGER.address.lower()}, "EIP-55"),
        ({"key": "nonsense"}, "not an address"),
        ({"signature": "0x12"}, "signature"),
        ({"signature": 7}, "string"),
        ({"extra": "x"}, "malformed"),
    ],
)
def test_an_authorisation_that_its_owner_did_not_sign_gives_no_key(grid, change, reason):
    spoilt = {**grid.authorisations[0], **change}
    admission = Admission(grid.shape, [spoilt, *grid.authorisations[1:], "garbage"])
    assert not admission.keys["worker-0"]
    first, second = admission.findings
    assert (first.kind, second.kind) == ("unauthorised", "unauthorised")
    assert reason in first.detail
