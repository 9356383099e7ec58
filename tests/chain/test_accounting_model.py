"""Epochs, payments, transfers and claims in random order, against a model in exact fractions and the vault's own identity."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

SCALE = 1 << 128
NUM_HOLDERS = 3

weights = st.lists(st.integers(0, 10), min_size=NUM_HOLDERS, max_size=NUM_HOLDERS).filter(any)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("epoch"), weights),
        st.tuples(st.just("pay"), st.one_of(st.integers(1, 50), st.integers(1, 3 * 10**18))),
        st.tuples(st.just("claim shares"), st.integers(0, 5), st.integers(0, NUM_HOLDERS - 1)),
        st.tuples(st.just("claim revenue"), st.integers(0, NUM_HOLDERS - 1)),
        st.tuples(st.just("transfer"), st.integers(0, NUM_HOLDERS - 1), st.integers(0, NUM_HOLDERS - 1), st.integers(1, 100)),
    ),
    min_size=2,
    max_size=12,
)


class Model:
    """Shares in integers, revenue in fractions; no rounding but the whole wei that a claim pays."""

    def __init__(self):
        self.balances = dict.fromkeys(range(NUM_HOLDERS), 0)
        self.tranches = {}  # (epoch, holder) -> [shares, revenue since finalisation]
        self.revenue = dict.fromkeys(range(NUM_HOLDERS), Fraction(0))
        self.paid, self.claimed = 0, 0

    @property
    def supply(self):
        return sum(self.balances.values()) + sum(shares for shares, _ in self.tranches.values())

    def pay(self, wei):
        per_share = Fraction(wei, self.supply)
        self.paid += wei
        for holder, balance in self.balances.items():
            self.revenue[holder] += balance * per_share
        for tranche in self.tranches.values():
            tranche[1] += tranche[0] * per_share


@settings(max_examples=10, deadline=None)
@given(operations=operations)
def test_paid_is_claimed_plus_claimable_plus_dust_to_the_wei(direct, signed_run, operations):
    run, model = signed_run(direct, NUM_HOLDERS), Model()
    contracts = run.contracts()
    token, holders = contracts.token, run.accounts
    tables = {}

    # However the middle goes, some shares are claimed early, and everyone with shares takes revenue that has a fraction, twice.
    begin = [("epoch", [1, 2, 4]), ("claim shares", 0, 0), ("claim shares", 0, 1), ("pay", 10**18 + 1)]
    end = [*(("claim revenue", holder) for holder in range(NUM_HOLDERS)), ("pay", 10**18 + 3), ("claim revenue", 0)]
    for operation, *arguments in [*begin, *operations, *end]:
        if operation == "epoch":
            (parts,) = arguments
            amounts = {holders[i].address: 10**24 * part // sum(parts) for i, part in enumerate(parts) if part}
            amounts[next(iter(amounts))] += 10**24 - sum(amounts.values())
            close = run.close(amounts)
            contracts.post(close)
            contracts.send(contracts.ledger, "finalizeEpoch", close["epoch"])
            for place, (_, address, wei) in enumerate(close["amounts"]):
                holder = next(i for i, account in enumerate(holders) if account.address == address)
                model.tranches[close["epoch"], holder] = [int(wei), Fraction(0)]
                tables[close["epoch"], holder] = (close, place)
        elif operation == "pay":
            contracts.send(token, "pay", value=arguments[0])
            model.pay(arguments[0])
        elif operation == "claim shares":
            key = tuple(arguments)
            if key in model.tranches:
                contracts.claim(*tables[key])
                shares, revenue = model.tranches.pop(key)
                model.balances[key[1]] += shares
                model.revenue[key[1]] += revenue
        elif operation == "claim revenue":
            (holder,) = arguments
            wei = token.functions.claimableRevenue(holders[holder].address).call()
            if wei:
                contracts.send(token, "claimRevenue", holders[holder].address, account=holders[holder].name)
                model.revenue[holder] -= wei
                model.claimed += wei
        else:
            source, target, percent = arguments
            shares = model.balances[source] * percent // 100
            contracts.send(token, "transfer", holders[target].address, shares, account=holders[source].name)
            model.balances[source] -= shares
            model.balances[target] += shares

    functions = token.functions
    index, carry = functions.revenueIndex().call(), functions.carry().call()
    paid, claimed = functions.totalPaid().call(), functions.totalClaimed().call()
    credits = [functions.revenueCredit(account.address).call() for account in holders]
    waiting = [
        shares * (index - contracts.ledger.functions.epochRecord(epoch).call()[3])
        for (epoch, _), (shares, _) in model.tranches.items()
    ]
    assert (paid, claimed) == (model.paid, model.claimed)
    assert sum(credits) + sum(waiting) + carry == (paid - claimed) * SCALE, "no fraction of a wei is lost or made"
    assert direct.balance(token.address) == paid - claimed
    for holder, account in enumerate(holders):
        assert functions.balanceOf(account.address).call() == model.balances[holder]
        # What is carried to the next payment is below 10**-9 wei for anyone, and may then fall to others.
        assert abs(model.revenue[holder] - Fraction(credits[holder], SCALE)) < Fraction(1, 10**9)
    assert functions.totalSupply().call() == model.supply
    dust = paid - claimed - sum(credit // SCALE for credit in credits) - sum(credit // SCALE for credit in waiting)
    assert 0 <= dust <= len(holders) + len(waiting)
