"""From signed epochs to owners, through the client: again and again, interrupted, and refused for the right reason."""

import time

import pytest

from pluralis_lab.chain import Chain, Token
from pluralis_lab.chain import client as client_module
from pluralis_lab.chain import tokenize as tokenize_module
from pluralis_lab.chain.reverts import ContractRefusedError
from pluralis_lab.errors import ChainError

ETHER = 10**18


@pytest.fixture
def closed(run):
    """A run with three signed epochs."""
    for _ in range(3):
        run.close()
    return run


def test_every_participant_holds_its_shares(closed):
    token = closed.tokenize()
    shares = token.shares()
    assert set(shares["name"]) == {"lab-a", "lab-b", "lab-c"}
    assert sum(shares["shares_wei"]) == 3 * 10**24
    assert shares["percent"].sum() == pytest.approx(100)
    assert list(shares.columns[:6]) == ["account", "name", "shares", "percent", "claimable_eth", "claimed_eth"]
    status = token.status()
    assert (status["epochs_posted"], status["epochs_finalized"], status["unclaimed_shares_wei"]) == (3, 3, 0)
    assert status["supply_wei"] == 3 * 10**24


def test_the_addresses_were_known_before_anything_was_deployed(closed):
    plan = closed.chain.plan(closed.id)
    assert closed.chain.web3.eth.get_code(plan["ledger"]) == b""
    token = closed.tokenize()
    assert (token.address, token.ledger) == (plan["token"], plan["ledger"])
    assert closed.chain.plan(closed.id) == plan


def test_tokenizing_twice_is_the_same_token_and_costs_nothing(closed):
    first = closed.tokenize()
    block = closed.chain.web3.eth.block_number
    second = closed.tokenize()
    assert (first.address, first.ledger) == (second.address, second.ledger)
    assert closed.chain.web3.eth.block_number == block


def test_a_run_that_goes_on_is_tokenized_further(closed):
    closed.tokenize()
    closed.close()
    token = closed.tokenize()
    assert token.status()["epochs_finalized"] == 4
    assert sum(token.shares()["shares_wei"]) == 4 * 10**24


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("stop_before", [1, 2, 3, 5])
def test_tokenizing_goes_on_where_it_was_cut_off(closed, monkeypatch, stop_before):
    monkeypatch.setattr(tokenize_module, "MAX_BATCH_GAS", 700_000)  # one or two calls a transaction
    calls = 0

    class Cut(Exception):
        pass

    def progress(what, done, total):
        nonlocal calls
        calls += 1
        if calls == stop_before + 1:
            raise Cut

    with pytest.raises(Cut):
        closed.tokenize(progress=progress)
    token = closed.tokenize()
    assert sum(token.shares()["shares_wei"]) == 3 * 10**24
    assert token.status()["unclaimed_shares_wei"] == 0


def test_a_cut_between_the_two_deployments_is_no_harm(closed, monkeypatch):
    transact, sent = Chain.transact, []

    def cut(self, name, **options):
        if sent and options.get("to") is None:
            raise ChainError("cut off")
        if options.get("to") is None:
            sent.append(name)
        return transact(self, name, **options)

    monkeypatch.setattr(Chain, "transact", cut)
    with pytest.raises(ChainError, match="cut off"):
        closed.tokenize()
    monkeypatch.setattr(Chain, "transact", transact)
    assert closed.tokenize().address == closed.plan["token"]


def test_an_epoch_without_quorum_stops_there_and_keeps_what_came_before(closed):
    closed.sign(closed.closes[1], accounts=closed.accounts[:2])
    with pytest.raises(ChainError, match="epoch 1 has 2 of 3 signatures"):
        closed.tokenize()
    assert Token.open(closed.info, closed.chain).status()["epochs_finalized"] == 1
    closed.sign(closed.closes[1])
    assert closed.tokenize().status()["epochs_finalized"] == 3


def test_a_table_that_was_not_signed_is_refused(closed):
    closed.closes[1]["amounts"][0][2] = str(10**24)
    with pytest.raises(ChainError, match="epoch 1: the table of amounts has another root"):
        closed.tokenize()


def test_two_roots_for_one_epoch_are_refused(closed):
    twin = closed.closes.pop()
    closed.close({closed.accounts[0].address: 10**24})
    closed.closes.append(twin)
    with pytest.raises(ChainError, match="epoch 2 was closed twice"):
        closed.tokenize()


def test_epochs_of_another_run_are_refused(closed, direct, signed_run):
    other = signed_run(direct)
    other.closes = closed.closes
    with pytest.raises(ChainError, match="was closed for run"):
        other.tokenize()


def test_signatures_of_another_run_are_refused_by_the_contract(closed, direct, signed_run):
    other = signed_run(direct)
    close = closed.close(run_id=other.id)
    assert close["run"] == closed.id
    with pytest.raises(ContractRefusedError, match=r"NotAnAttester\(signer=0x[0-9a-fA-F]{40}\): a signature is of nobody"):
        closed.tokenize()


def test_another_chain_is_refused(closed, tmp_path_factory, signed_run):
    description = closed.chain.describe()
    closed.info["chain"]["chain_id"] += 1
    with pytest.raises(ChainError, match="never changes its chain"):
        closed.tokenize()
    with pytest.raises(ChainError, match="never changes its chain"):
        Token.open(closed.info, closed.chain)
    assert description["chain_id"] == closed.chain.chain_id


def test_a_run_without_a_chain_is_not_tokenized(closed):
    closed.info["chain"] = {"kind": "none"}
    with pytest.raises(ChainError, match="launched without a chain"):
        closed.tokenize()
    with pytest.raises(ChainError, match="launched without a chain"):
        Token.open(closed.info)


def test_there_is_no_token_before_tokenize(closed):
    with pytest.raises(ChainError, match=r"has no token yet; call run.tokenize\(\)"):
        Token.open(closed.info, closed.chain)


def test_revenue_reaches_its_owners_to_the_wei(closed):
    token = closed.tokenize()
    receipt = token.pay(ether=1, account="customer")
    assert receipt["wei"] == ETHER
    token.pay(ether="0.000000000000000007")
    assert closed.chain.balance(token.address) == ETHER + 7
    claimed = token.claim()
    assert set(claimed["name"]) == {"lab-a", "lab-b", "lab-c"}
    status = token.status()
    assert status["paid_wei"] == ETHER + 7 == status["claimed_wei"] + status["claimable_wei"] + status["dust_wei"]
    assert status["claimed_wei"] == sum(claimed["wei"])
    assert status["claimable_wei"] == 0
    assert 0 <= status["dust_wei"] == status["balance_wei"] <= 3
    assert list(token.claim().columns) == ["account", "name", "wei", "ether"]
    assert len(token.claim()) == 0
    assert sum(token.shares()["claimed_wei"]) == status["claimed_wei"]


def test_one_account_can_claim_alone(closed):
    token = closed.tokenize()
    token.pay(ether=3)
    assert list(token.claim("lab-b")["name"]) == ["lab-b"]
    left = token.shares().set_index("name")["claimable_wei"]
    assert left["lab-b"] == 0
    assert left["lab-a"] > 0


def test_shares_nobody_relayed_are_counted_as_their_owners_and_can_be_claimed_late(closed, monkeypatch):
    # What a chain with a challenge window looks like in between: posted and final, nothing handed out.
    with monkeypatch.context() as patch:
        patch.setattr(tokenize_module, "send_batch", lambda chain, ledger, batch, account: None)
        token = closed.tokenize()
    for close in closed.closes:
        steps = tokenize_module._steps(closed.chain, token.ledger, tokenize_module.read_closes(closed.id, [close]), _all(closed))[
            0
        ]
        tokenize_module.send_batch(closed.chain, token.ledger, steps[:2], "lab-a")
    token.pay(ether=1)
    status, shares = token.status(), token.shares()
    assert status["unclaimed_shares_wei"] == 3 * 10**24 == sum(shares["shares_wei"])
    assert status["dust_wei"] + sum(shares["claimable_wei"]) == ETHER
    assert sum(token.claim()["wei"]) == sum(shares["claimable_wei"])
    assert token.status()["unclaimed_shares_wei"] == 0


def test_with_a_challenge_window_epochs_are_posted_now_and_paid_later(fresh, signed_run, monkeypatch):
    fresh.profile = "public"
    run = signed_run(fresh)
    run.close(), run.close()
    status = run.tokenize().status()
    assert (status["epochs_posted"], status["epochs_finalized"], status["supply_wei"]) == (2, 0, 0)
    later = time.time() + status["challenge_window_s"] + 1
    monkeypatch.setattr(fresh._daemon.methods._node, "_clock", lambda: later)
    monkeypatch.setattr(client_module.time, "time", lambda: later)
    token = run.tokenize()
    assert token.status()["epochs_finalized"] == 2
    assert sum(token.shares()["shares_wei"]) == 2 * 10**24


def test_another_table_for_a_posted_epoch_is_refused(closed):
    closed.tokenize()
    closed.closes.pop()
    closed.close({closed.accounts[0].address: 10**24})
    with pytest.raises(ChainError, match="epoch 2 is on the chain with another root"):
        closed.tokenize()


def test_a_ledger_with_other_attesters_is_not_this_runs(closed):
    closed.tokenize()
    closed.info["attesters"] = closed.info["attesters"][:2]
    with pytest.raises(ChainError, match="has attesters"):
        closed.tokenize()


def test_addresses_of_another_home_are_refused(closed):
    closed.info["chain"]["ledger"] = closed.accounts[0].address
    with pytest.raises(ChainError, match="tokenize from the home it was launched from"):
        closed.tokenize()


def _all(run):
    return {account.address for account in run.accounts}


def test_batches_stay_under_the_cap_of_one_transaction():
    steps = [tokenize_module.Step("x", "0x", tokenize_module.GAS_CLAIM) for _ in range(500)]
    cut = list(tokenize_module.batches(steps))
    assert sum(len(batch) for batch in cut) == 500
    assert all(sum(s.gas for s in batch) + tokenize_module.GAS_BATCH < 16_777_216 for batch in cut)


def test_each_step_stays_under_the_gas_that_batches_assume(direct, signed_run, record_property):
    run = signed_run(direct, 7)
    contracts = run.contracts()
    run.close(), run.close()
    used = {}
    for close in run.closes:
        used[f"post {close['epoch']}"] = contracts.post(close)["gasUsed"]
        used[f"finalize {close['epoch']}"] = contracts.send(contracts.ledger, "finalizeEpoch", close["epoch"])["gasUsed"]
        for place in range(7):
            used[f"claim {close['epoch']}.{place}"] = contracts.claim(close, place)["gasUsed"]
    for name, gas in used.items():
        record_property(name, gas)
    assert (
        max(gas for name, gas in used.items() if name.startswith("post"))
        < tokenize_module.GAS_POST + 7 * tokenize_module.GAS_SIGNATURE
    )
    assert max(gas for name, gas in used.items() if name.startswith("finalize")) < tokenize_module.GAS_FINALIZE
    assert max(gas for name, gas in used.items() if name.startswith("claim")) < tokenize_module.GAS_CLAIM
    print(used)


@pytest.mark.parametrize("ether", ["0.0000000000000000001", -1, "much"])
def test_an_amount_that_is_no_amount_is_refused(closed, ether):
    token = closed.tokenize()
    with pytest.raises(ChainError, match="ether="):
        token.pay(ether=ether)


def test_the_table_of_owners_reads_without_styles(closed):
    token = closed.tokenize()
    page = token._repr_html_()
    assert "lab-b" in page
    assert "<style" not in page
    assert "3,000,000 shares" in page
