import copy
import json

import pytest
from eth_utils import keccak

from pluralis_lab.canonical import digest
from pluralis_lab.contributions import merkle
from pluralis_lab.contributions.attestation import recover_typed
from pluralis_lab.contributions.closing import Close, check_close, claim_proof, close_epoch
from pluralis_lab.contributions.receipts import statement_hash
from pluralis_lab.errors import EvidenceError


@pytest.fixture(scope="module")
def epoch(grid):
    lines = grid.statements(0)
    return lines, close_epoch(grid.shape, 0, lines, grid.authorisations, grid.digests)


def check(run, close, lines, **options):
    return check_close(run.shape, close, lines, run.authorisations, **options)


def test_a_close_lists_the_statements_and_pays_the_whole_emission(grid, epoch):
    lines, close = epoch
    hashes = sorted(statement_hash(line) for line in lines)
    assert close["statements"] == hashes
    assert close["data_hash"] == digest(b"".join(bytes.fromhex(h) for h in hashes))
    assert close["model_hash"] == digest(b"".join(bytes.fromhex(h) for h in grid.digests))
    assert sum(int(wei) for _, _, wei in close["amounts"]) == 10**24
    assert [index for index, _, _ in close["amounts"]] == [0, 1, 2]
    accounts = [account for _, account, _ in close["amounts"]]
    assert accounts == sorted(grid.shape.participants.values(), key=str.lower)
    assert (close["epoch"], close["run"], close["attempt"]) == (0, grid.shape.run_id, 0)
    assert json.loads(json.dumps(close)) == close
    assert Close.parse(close).to_dict() == close


def test_everyone_who_is_paid_has_a_proof_and_nobody_else(grid, epoch):
    _, close = epoch
    for index, account, wei in close["amounts"]:
        assert claim_proof(close, account)[:2] == (index, int(wei))
        proof = claim_proof(close, account)[2]
        leaf = merkle.leaf(grid.shape.run_id, 0, index, account, int(wei), close["data_hash"])
        assert merkle.verify(leaf, proof, bytes.fromhex(close["root"][2:]))
    assert claim_proof(close, "0x" + "11" * 20) is None


def test_the_close_does_not_depend_on_the_order_in_which_statements_came(grid, epoch):
    lines, close = epoch
    assert close_epoch(grid.shape, 0, lines[::-1], grid.authorisations, grid.digests) == close


def test_garbage_from_a_peer_does_not_enter_a_close(grid, epoch):
    lines, close = epoch
    forged = copy.deepcopy(lines[0])
    forged["body"]["norm"] = None
    forged["body"]["round"] = 1 - forged["body"]["round"]
    mixed = [*lines, forged, None, {"body": 3}, *grid.statements(1)]
    assert close_epoch(grid.shape, 0, mixed, grid.authorisations, grid.digests) == close


def test_an_epoch_in_which_nothing_was_attested_has_the_empty_root(paper_run):
    run = paper_run(1, 1)
    close = close_epoch(
        run.shape, 0, [run.receipt("contribution", 0, "worker-0", "worker-0", [0])], run.authorisations, run.digests
    )
    assert close["root"] == "0x" + "00" * 32
    assert (close["amounts"], close["shares"], len(close["statements"])) == ([], {}, 1)


def test_one_digest_a_stage_is_needed(grid):
    with pytest.raises(EvidenceError, match="2 state digests"):
        close_epoch(grid.shape, 0, [], grid.authorisations, grid.digests[:2])


def test_an_attester_that_recomputes_the_same_gets_what_it_has_to_sign(grid, epoch):
    lines, close = epoch
    typed = check(grid, close, lines, attester="lab-a", state_digests={1: grid.digests[1]})
    attested = grid.attest(close)
    for attestation in attested["attestations"]:
        assert recover_typed(typed, attestation["signature"]) == attestation["address"]
    assert check(grid, attested, lines) == typed


def test_an_attester_refuses_a_close_that_leaves_out_its_own_statement(grid, epoch):
    lines, _ = epoch
    own = next(line for line in lines if grid.shape.seats[line["body"]["signer"]].participant == "lab-b")
    rest = [line for line in lines if line is not own]
    close = close_epoch(grid.shape, 0, rest, grid.authorisations, grid.digests)
    with pytest.raises(EvidenceError, match=f"leaves out .*{own['body']['signer']}"):
        check(grid, close, lines, attester="lab-b")
    with pytest.raises(EvidenceError, match="leaves out"):
        check(grid, close, lines)
    check(grid, close, lines, attester="lab-a")  # the others cannot know whether it came in time


def test_an_attester_refuses_a_close_over_statements_that_it_cannot_read(grid, epoch):
    lines, close = epoch
    with pytest.raises(EvidenceError, match=r"not at hand.*fetch"):
        check(grid, close, lines[1:], attester="lab-a")


def test_an_attester_refuses_a_close_over_a_statement_that_does_not_count(grid, epoch):
    lines, close = epoch
    forged = grid.receipt("forward", 0, "worker-0", "worker-2", [0], signer_key=grid.keys["worker-5"])
    listed = sorted([*close["statements"], statement_hash(forged)])
    position = listed.index(statement_hash(forged))
    listing = [*close["listing"]]
    listing.insert(position, ["forward", 0, "worker-0", "worker-2"])
    with pytest.raises(EvidenceError, match="does not count"):
        check(grid, {**close, "statements": listed, "listing": listing}, [*lines, forged])


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("root", lambda root: "0x" + "11" * 32),
        ("data_hash", lambda old: "22" * 32),
        ("model_hash", lambda old: "33" * 32),
        ("shares", lambda old: {"lab-a": [1, 1]}),
        ("amounts", lambda old: [[i, account, str(int(wei) + (1, -1, 0)[i])] for i, account, wei in old]),
        ("amounts", lambda old: old[:2]),
        ("listing", lambda old: [["backward", *entry[1:]] for entry in old]),
        ("run", lambda old: "44" * 32),
        ("epoch", lambda old: 1),
        ("state_digests", lambda old: old[::-1]),
        ("statements", lambda old: old[::-1]),
        ("attempt", lambda old: -1),
        ("amounts", lambda old: [[i, account, f"0{wei}"] for i, account, wei in old]),
        ("shares", lambda old: {name: [2 * num, 2 * den] for name, (num, den) in old.items()}),
        ("extra", lambda old: 1),
    ],
)
def test_an_attester_refuses_a_close_that_does_not_follow_from_the_statements(grid, epoch, field, change):
    lines, close = epoch
    with pytest.raises(EvidenceError):
        check(grid, {**close, field: change(close.get(field))}, lines)


def test_an_attester_refuses_another_state_of_its_own_stage(grid, epoch):
    lines, close = epoch
    with pytest.raises(EvidenceError, match="stage 1"):
        check(grid, close, lines, state_digests={1: "55" * 32})


@pytest.mark.parametrize("garbage", [None, 3, {}, {"epoch": "x"}, []])
def test_a_malformed_close_is_refused(garbage):
    with pytest.raises(EvidenceError):
        Close.parse(garbage)


def test_the_root_of_two_payments_is_the_hash_of_their_leaves(paper_run):
    run = paper_run(1, 2, owners=2)
    close = close_epoch(run.shape, 0, run.statements(0), run.authorisations, run.digests)
    a, b = (merkle.leaf(run.shape.run_id, 0, i, account, int(wei), close["data_hash"]) for i, account, wei in close["amounts"])
    assert close["root"] == "0x" + keccak(min(a, b) + max(a, b)).hex()
