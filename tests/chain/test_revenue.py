"""Revenue: who earns what, and that every wei paid is claimed, claimable or dust."""

import pytest

from pluralis_lab.chain.reverts import ContractRefusedError
from pluralis_lab.errors import ChainError

ETHER = 10**18


@pytest.fixture
def paid(run):
    """A run with one paid epoch whose shares still wait in the ledger."""
    contracts = run.contracts()
    close = run.close()
    contracts.post(close)
    contracts.send(contracts.ledger, "finalizeEpoch", 0)
    contracts.close = close
    return contracts


def test_nobody_can_be_paid_before_shares_exist(run):
    contracts = run.contracts()
    with pytest.raises(ContractRefusedError, match="NobodyToPay"):
        contracts.send(contracts.token, "pay", value=1)


def test_a_plain_transfer_of_ether_is_revenue_too(run, paid):
    run.chain.transact("lab-a", to=paid.token.address, value=7)
    assert paid.token.functions.totalPaid().call() == 7
    with pytest.raises(ContractRefusedError, match="NothingPaid"):
        run.chain.transact("lab-a", to=paid.token.address, value=0)


def test_shares_earn_while_they_wait_in_the_ledger(run, paid):
    paid.send(paid.token, "pay", value=3 * ETHER)
    assert paid.token.functions.claimableRevenue(paid.ledger.address).call() == 0, "what waits in the ledger is others'"
    for place in range(3):
        paid.claim(paid.close, place)
    revenue = [paid.token.functions.claimableRevenue(a.address).call() for a in run.accounts]
    assert all(ETHER - 2 <= wei <= ETHER + 2 for wei in revenue)
    assert 3 * ETHER - 3 <= sum(revenue) <= 3 * ETHER


def test_shares_do_not_earn_what_was_paid_before_their_epoch(run, paid):
    paid.send(paid.token, "pay", value=ETHER)
    newcomer = run.chain.account("newcomer")
    second = run.close({newcomer.address: 10**24})
    paid.post(second)
    paid.send(paid.ledger, "finalizeEpoch", 1)
    paid.claim(second, 0)
    assert paid.token.functions.claimableRevenue(newcomer.address).call() == 0
    paid.send(paid.token, "pay", value=ETHER)
    assert paid.token.functions.claimableRevenue(newcomer.address).call() in (ETHER // 2 - 1, ETHER // 2)


def test_revenue_stays_with_the_seller_and_the_future_goes_with_the_shares(run, paid):
    for place in range(3):
        paid.claim(paid.close, place)
    paid.send(paid.token, "pay", value=3 * ETHER)
    seller, buyer = run.accounts[0], run.chain.account("buyer")
    balance = paid.token.functions.balanceOf(seller.address).call()
    paid.send(paid.token, "transfer", buyer.address, balance, account=seller.name)
    assert paid.token.functions.claimableRevenue(buyer.address).call() == 0
    before = paid.token.functions.claimableRevenue(seller.address).call()
    assert before in (ETHER - 1, ETHER)
    paid.send(paid.token, "pay", value=3 * ETHER)
    assert paid.token.functions.claimableRevenue(seller.address).call() == before
    assert paid.token.functions.claimableRevenue(buyer.address).call() in (ETHER - 1, ETHER)


def test_a_claim_pays_whole_wei_once(run, paid):
    paid.claim(paid.close, 0)
    holder = next(a for a in run.accounts if a.address == paid.close["amounts"][0][1])
    paid.send(paid.token, "pay", value=ETHER)
    target = run.chain.web3.to_checksum_address("0x" + "ab" * 20)
    paid.send(paid.token, "claimRevenue", target, account=holder.name)
    assert run.chain.balance(target) in (ETHER // 3 - 1, ETHER // 3)
    with pytest.raises(ContractRefusedError, match="NothingToClaim"):
        paid.send(paid.token, "claimRevenue", target, account=holder.name)


def test_shares_cannot_be_sent_where_their_revenue_would_be_lost(run, paid):
    paid.claim(paid.close, 0)
    holder = next(a for a in run.accounts if a.address == paid.close["amounts"][0][1])
    for lost in (paid.ledger.address, paid.token.address):
        with pytest.raises(ContractRefusedError, match="CannotHoldShares"):
            paid.send(paid.token, "transfer", lost, 1, account=holder.name)


@pytest.mark.parametrize(("function", "arguments"), [("mintEpoch", [10**30]), ("release", ["0x" + "12" * 20, 1, 0])])
def test_only_the_ledger_mints_and_releases(paid, function, arguments):
    with pytest.raises(ContractRefusedError, match="OnlyLedger"):
        paid.send(paid.token, function, *arguments)


def test_every_claimed_share_has_a_vote_without_another_transaction(run, paid):
    paid.claim(paid.close, 0)
    holder = next(a for a in run.accounts if a.address == paid.close["amounts"][0][1])
    votes = paid.token.functions.getVotes
    amount = int(paid.close["amounts"][0][2])
    assert votes(holder.address).call() == amount
    assert votes(paid.ledger.address).call() == 0
    other = run.chain.account("delegate")
    paid.send(paid.token, "delegate", other.address, account=holder.name)
    assert (votes(holder.address).call(), votes(other.address).call()) == (0, amount)
    paid.send(paid.token, "delegate", "0x" + "00" * 20, account=holder.name)
    assert (votes(holder.address).call(), votes(other.address).call()) == (amount, 0)
    paid.send(paid.token, "transfer", other.address, amount, account=holder.name)
    assert (votes(holder.address).call(), votes(other.address).call()) == (0, amount)


def test_an_allowance_can_be_signed(run, paid):
    paid.claim(paid.close, 0)
    owner = next(a for a in run.accounts if a.address == paid.close["amounts"][0][1])
    spender = run.chain.account("spender")
    fields = [("owner", "address"), ("spender", "address"), ("value", "uint256"), ("nonce", "uint256"), ("deadline", "uint256")]
    domain = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    permit = {
        "types": {
            "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain.items()],
            "Permit": [{"name": name, "type": kind} for name, kind in fields],
        },
        "primaryType": "Permit",
        "domain": {"name": "A model", "version": "1", "chainId": run.chain.chain_id, "verifyingContract": paid.token.address},
        "message": {"owner": owner.address, "spender": spender.address, "value": 5, "nonce": 0, "deadline": 2**40},
    }
    signature = bytes.fromhex(run.chain.sign_typed_data(owner.name, permit)[2:])
    r, s, v = signature[:32], signature[32:64], signature[64]
    paid.send(paid.token, "permit", owner.address, spender.address, 5, 2**40, v, r, s, account=spender.name)
    paid.send(paid.token, "transferFrom", owner.address, spender.address, 5, account=spender.name)
    assert paid.token.functions.balanceOf(spender.address).call() == 5


def test_a_payee_cannot_reenter(run, paid):
    from eth_utils.crypto import keccak

    claim_selector, pay_selector = keccak(text="claimRevenue(address)")[:4].hex(), keccak(text="pay()")[:4].hex()
    token = "73" + paid.token.address[2:].lower()  # PUSH20 token
    # With data: pass it on to the token; what it answers is given back, and a refusal is a refusal.
    pass_on = "5b366000600037600060003660006000" + token + "5af13d600060003e60{done}573d6000fd"
    on_ether = (
        # claimRevenue(address(this)): selector at 0, own address at 4; then 1 + success into slot 0
        "63" + claim_selector + "60e01b600052"
        "30600452"
        "6000600060246000"
        "6000" + token + "5af1"
        "600101600055"
        # pay() with one wei: 1 + success into slot 1
        "63" + pay_selector + "60e01b600052"
        "6000600060046000"
        "6001" + token + "5af1"
        "600101600155"
        "00"
    )
    start = 4 + len(on_ether) // 2  # where pass_on begins, after CALLDATASIZE PUSH1 start JUMPI
    done = start + len(pass_on.replace("{done}", "00")) // 2
    runtime = f"3660{start:02x}57" + on_ether + pass_on.replace("{done}", f"{done:02x}") + "5b00"
    assert runtime[start * 2 : start * 2 + 2] == runtime[done * 2 : done * 2 + 2] == "5b"
    size = len(runtime) // 2
    creation = f"0x60{size:02x}600c60003960{size:02x}6000f3" + runtime
    attacker = run.chain.transact("lab-b", to=None, data=creation)["contractAddress"]

    paid.claim(paid.close, 0)
    holder = next(a for a in run.accounts if a.address == paid.close["amounts"][0][1])
    paid.send(paid.token, "transfer", attacker, 10**20, account=holder.name)
    paid.send(paid.token, "pay", value=ETHER)
    due = paid.token.functions.claimableRevenue(attacker).call()
    assert due > 0
    data = paid.token.encode_abi("claimRevenue", args=[attacker])
    run.chain.transact("lab-b", to=attacker, data=data)
    assert run.chain.balance(attacker) == due
    storage = [int.from_bytes(run.chain.web3.eth.get_storage_at(attacker, slot), "big") for slot in (0, 1)]
    assert storage == [1, 1], "the attacker's calls were made, and both failed"
    assert paid.token.functions.totalClaimed().call() == due


def test_a_payment_needs_the_money(run, paid):
    with pytest.raises(ChainError, match=r"balance|funds"):
        paid.send(paid.token, "pay", value=10**24)
