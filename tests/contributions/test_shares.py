from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.contributions.shares import HALVING_EPOCHS, amounts_wei, emission_wei, shares
from pluralis_lab.errors import EvidenceError

ADDRESSES = {f"lab-{i}": "0x" + f"{(i * 2654435761) % 2**160:040x}" for i in range(12)}
unit_tables = st.dictionaries(st.sampled_from(sorted(ADDRESSES)), st.integers(0, 10**30), max_size=12)


@given(units=unit_tables)
def test_shares_sum_to_exactly_one_or_there_are_none(units):
    table = shares(units)
    assert sum(table.values()) == (1 if any(units.values()) else 0)
    assert all(share > 0 for share in table.values())


@given(units=unit_tables, emission=st.integers(0, 10**27))
def test_amounts_sum_to_the_emission_and_are_within_a_wei_of_the_exact_share(units, emission):
    table = shares(units)
    amounts = amounts_wei(table, ADDRESSES, emission)
    assert sum(amounts.values()) == (emission if table else 0)
    assert list(amounts) == sorted(amounts, key=str.lower)
    for name, share in table.items():
        assert abs(amounts.get(ADDRESSES[name], 0) - share * emission) < 1


@given(units=unit_tables, emission=st.integers(1, 1000), seed=st.randoms())
def test_amounts_do_not_depend_on_the_order_of_participants(units, emission, seed):
    shuffled = list(units.items())
    seed.shuffle(shuffled)
    assert amounts_wei(shares(units), ADDRESSES, emission) == amounts_wei(shares(dict(shuffled)), ADDRESSES, emission)


def test_the_last_wei_goes_to_the_lowest_address_among_equals():
    addresses = {"a": "0x" + "cc" * 20, "b": "0x" + "AA" * 20, "c": "0x" + "bb" * 20}
    third = dict.fromkeys("abc", Fraction(1, 3))
    assert amounts_wei(third, addresses, 10) == {addresses["b"]: 4, addresses["c"]: 3, addresses["a"]: 3}
    assert amounts_wei(third, addresses, 1) == {addresses["b"]: 1}  # who gets no wei has no leaf


def test_the_largest_remainder_gets_the_wei():
    addresses = {"a": "0x" + "11" * 20, "b": "0x" + "22" * 20}
    assert amounts_wei({"a": Fraction(1, 4), "b": Fraction(3, 4)}, addresses, 3) == {addresses["a"]: 1, addresses["b"]: 2}


def test_participants_of_one_account_are_paid_together():
    both = {"a": "0x" + "11" * 20, "b": "0x" + "11" * 20}
    assert amounts_wei({"a": Fraction(1, 3), "b": Fraction(2, 3)}, both, 100) == {both["a"]: 100}


def test_nothing_is_invented_for_wrong_tables():
    with pytest.raises(EvidenceError, match="sum to"):
        amounts_wei({"lab-1": Fraction(1, 2)}, ADDRESSES, 10)
    with pytest.raises(EvidenceError, match="no account"):
        amounts_wei({"nobody": Fraction(1)}, ADDRESSES, 10)
    with pytest.raises(EvidenceError, match="negative"):
        shares({"lab-1": -1, "lab-2": 2})


def test_the_emission_halves_as_the_ledger_shifts():
    assert emission_wei(1_000_000, 0) == emission_wei(1_000_000, HALVING_EPOCHS - 1) == 10**24
    assert emission_wei(1_000_000, HALVING_EPOCHS) == 10**24 >> 1
    assert emission_wei(1, 60 * HALVING_EPOCHS) == 0
    assert amounts_wei({"lab-1": Fraction(1)}, ADDRESSES, 0) == {}
    with pytest.raises(EvidenceError):
        emission_wei(1, -1)
