"""What the ledger refuses, and that it names the reason."""

import pytest

from pluralis_lab.chain.reverts import ContractRefusedError


def refused(name, function, *arguments, **options):
    with pytest.raises(ContractRefusedError, match=name) as caught:
        function(*arguments, **options)
    assert caught.value.name == name
    return caught.value


def test_a_root_without_quorum_is_refused(run):
    contracts = run.contracts()
    close = run.close(accounts=run.accounts[:2])
    error = refused("QuorumNotReached", contracts.post, close)
    assert error.arguments == {"given": 2, "needed": 3}


@pytest.mark.parametrize(("num_attesters", "quorum"), [(1, 1), (2, 2), (3, 3), (4, 3), (6, 5), (7, 5)])
def test_the_quorum_is_more_than_two_thirds(direct, signed_run, num_attesters, quorum):
    run = signed_run(direct, num_attesters)
    contracts = run.contracts()
    assert contracts.ledger.functions.minQuorum().call() == quorum
    if quorum > 1:
        refused("QuorumNotReached", contracts.post, run.close(accounts=run.accounts[: quorum - 1]))
        run.sign(run.closes[0], accounts=run.accounts[:quorum])
    else:
        run.close()
    contracts.post(run.closes[0])


def test_one_attester_cannot_count_twice(run):
    contracts = run.contracts()
    close = run.close(accounts=[run.accounts[0], run.accounts[0], run.accounts[1]])
    refused("SignersNotAscending", contracts.post, close)


def test_a_stranger_is_no_attester(run):
    contracts = run.contracts()
    stranger = run.chain.account("stranger")
    close = run.close(accounts=[*run.accounts[:2], stranger])
    assert refused("NotAnAttester", contracts.post, close).arguments == {"signer": stranger.address}


def test_a_root_of_another_run_is_refused(run, direct, signed_run):
    contracts, other = run.contracts(), signed_run(direct)
    close = run.close(run_id=other.id)
    refused("NotAnAttester", contracts.post, close)
    run.sign(close)
    contracts.post(close)


@pytest.mark.parametrize("instead", [{"chain_id_offset": 1}, {"verifying_contract": "token"}, {"attempt": 1}, {"epoch": 1}])
def test_a_signature_over_anything_else_is_refused(run, instead):
    contracts = run.contracts()
    close = run.close()
    if "chain_id_offset" in instead:
        # An embedded account refuses to sign for another chain at all: the daemon is the first line of defence.
        with pytest.raises(Exception, match="signs nothing for chain"):
            run.sign(close, chain_id=run.chain.chain_id + 1)
        return
    if "verifying_contract" in instead:
        instead = {"verifying_contract": run.plan["token"]}
    run.sign(close, **instead)
    refused("NotAnAttester", contracts.post, close)


def test_a_replayed_epoch_is_refused(run):
    contracts = run.contracts()
    close = run.close()
    contracts.post(close)
    assert refused("EpochOutOfOrder", contracts.post, close).arguments == {"expected": 1, "given": 0}


def test_epochs_are_posted_in_order(run):
    contracts = run.contracts()
    first, second = run.close(), run.close()
    assert refused("EpochOutOfOrder", contracts.post, second).arguments == {"expected": 0, "given": 1}
    contracts.post(first)
    contracts.post(second)


def test_another_attempt_is_refused(run):
    contracts = run.contracts()
    close = run.close()
    close["attempt"] = 1
    run.sign(close)
    refused("WrongAttempt", contracts.post, close)


def test_an_epoch_is_minted_once_and_only_after_it_was_posted(run):
    contracts = run.contracts()
    refused("EpochNotPosted", contracts.send, contracts.ledger, "finalizeEpoch", 0)
    close = run.close()
    contracts.post(close)
    refused("EpochNotFinal", contracts.claim, close, 0)
    contracts.send(contracts.ledger, "finalizeEpoch", 0)
    refused("EpochAlreadyFinal", contracts.send, contracts.ledger, "finalizeEpoch", 0)
    assert contracts.token.functions.totalSupply().call() == 10**24
    assert contracts.token.functions.balanceOf(contracts.ledger.address).call() == 10**24


def test_a_forged_claim_is_refused(run):
    contracts = run.contracts()
    first, second = run.close(), run.close()
    for close in (first, second):
        contracts.post(close)
        contracts.send(contracts.ledger, "finalizeEpoch", close["epoch"])
    thief = run.chain.account("thief").address
    _, owner, amount = first["amounts"][0]
    for forged in ({"amount": int(amount) + 1}, {"account": thief}, {"index": 1}, {"epoch": 1}):
        refused("InvalidProof", contracts.claim, first, 0, **forged)
    contracts.claim(first, 0, relay="thief")  # anyone may relay; the owner is paid
    assert contracts.token.functions.balanceOf(owner).call() == int(amount)
    assert contracts.token.functions.balanceOf(thief).call() == 0


def test_a_second_claim_is_refused(run):
    contracts = run.contracts()
    close = run.close()
    contracts.post(close)
    contracts.send(contracts.ledger, "finalizeEpoch", 0)
    contracts.claim(close, 1)
    assert contracts.ledger.functions.isClaimed(0, 1).call()
    refused("AlreadyClaimed", contracts.claim, close, 1)


def test_a_table_above_the_emission_cannot_reach_another_epochs_shares(run):
    contracts = run.contracts()
    honest = run.close()
    greedy = run.close({run.accounts[0].address: 6 * 10**23, run.accounts[1].address: 6 * 10**23})
    for close in (honest, greedy):
        contracts.post(close)
        contracts.send(contracts.ledger, "finalizeEpoch", close["epoch"])
    contracts.claim(greedy, 0)
    refused("EpochOverdrawn", contracts.claim, greedy, 1)
    for place in range(3):
        contracts.claim(honest, place)


def test_an_epoch_in_which_nothing_was_earned_mints_nothing(run):
    contracts = run.contracts()
    close = run.close({})
    assert int(close["root"], 16) == 0
    contracts.post(close)
    contracts.send(contracts.ledger, "finalizeEpoch", 0)
    assert contracts.token.functions.totalSupply().call() == 0


def test_the_emission_halves_on_schedule(run):
    contracts = run.contracts(halving=2)
    emission = contracts.ledger.functions.emission
    assert [emission(epoch).call() for epoch in (0, 1, 2, 3, 4, 511, 512, 2**64 - 1)] == [
        10**24, 10**24, 10**24 // 2, 10**24 // 2, 10**24 // 4, 0, 0, 0,
    ]  # fmt: skip


def test_nothing_is_final_inside_the_challenge_window(fresh, signed_run, monkeypatch):
    run = signed_run(fresh)
    contracts = run.contracts(window=3600)
    close = run.close()
    contracts.post(close)
    error = refused("ChallengeWindowOpen", contracts.send, contracts.ledger, "finalizeEpoch", 0)
    node = run.chain._daemon.methods._node
    monkeypatch.setattr(node, "_clock", lambda: error.arguments["finalAt"] - 1)
    refused("ChallengeWindowOpen", contracts.send, contracts.ledger, "finalizeEpoch", 0)
    monkeypatch.setattr(node, "_clock", lambda: error.arguments["finalAt"])
    contracts.send(contracts.ledger, "finalizeEpoch", 0)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("NoAttesters", {"attesters": []}),
        ("BadAttester", {"attesters": ["0x" + "00" * 20]}),
        ("BadAttester", {"attesters": ["0x" + "11" * 20, "0x" + "11" * 20]}),
        ("BadSchedule", {"halving": 0}),
        ("BadSchedule", {"emission": 2**127}),
    ],
)
def test_a_ledger_that_could_not_work_is_not_deployed(run, name, instead):
    refused(name, run.contracts, **instead)


def test_a_malformed_signature_is_refused(run):
    contracts = run.contracts()
    close = run.close()
    close["attestations"][1]["signature"] = "0x" + "00" * 64
    refused("ECDSAInvalidSignatureLength", contracts.post, close)
