"""Parts of a spec: given by name or position, immutable, and refused with one clear line."""

import pytest
from pydantic import ValidationError

from pluralis_lab import aggregators, policies
from pluralis_lab.errors import RunSpecError
from pluralis_lab.parts import GPT, MLP, AdamW, Dense, DiLoCo, FullSync, Mean, SliceSync, Subspace, Work


def test_the_first_field_may_be_given_by_position():
    assert Subspace(16) == Subspace(rank=16)
    assert MLP([64, 96, 10]) == MLP(widths=(64, 96, 10))
    assert GPT(4) == GPT(n_layer=4)
    assert AdamW(1e-3) == AdamW(lr=1e-3)
    assert Subspace(8, "same") == Subspace(rank=8, wire="same")
    assert Subspace(8, wire="same") == Subspace(rank=8, wire="same")


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: GPT(n_layer=0), ["n_layer=0", "greater than or equal to 1"]),
        (lambda: GPT(depth=3), ["depth=3", "n_layer"]),
        (lambda: Subspace(0), ["rank=0"]),
        (lambda: Subspace("many"), ["rank='many'", "integer"]),
        (lambda: Subspace(4, rank=5), ["rank", "twice"]),
        (lambda: Subspace(self=5), ["self=5"]),
        (lambda: MLP(), ["MLP", "widths"]),
        (lambda: MLP(64, 96, 10), ["(64, 96, 10)", "widths", "brackets"]),
        (lambda: AdamW(lr=float("inf")), ["lr=inf", "finite"]),
        (lambda: AdamW(beta1=1.0), ["beta1=1.0", "less than 1"]),
        (lambda: Mean(3), ["Mean", "no values"]),
        (lambda: FullSync(payload="int4"), ["payload='int4'", "'same'", "'bfloat16'", "'int8'"]),
        (lambda: DiLoCo(0), ["inner_steps=0", "greater than or equal to 1"]),
        (lambda: SliceSync(fraction=1.5), ["fraction=1.5", "less than or equal to 1"]),
        (lambda: Dense(wire="int8"), ["wire='int8'", "'same'", "'bfloat16'"]),
    ],
)
def test_a_bad_part_is_refused_with_its_value(make, parts):
    with pytest.raises(RunSpecError) as raised:
        make()
    message = str(raised.value)
    assert all(part in message for part in parts), message
    assert not any(noise in message for noise in ("pydantic", "http", "\n", "validation error"))


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(RunSpecError) as raised:
        Subspace("x" * 100_000)
    assert len(str(raised.value)) < 400


def test_parts_are_values():
    assert hash(Subspace(16)) == hash(Subspace(16))
    assert Subspace(16) != Subspace(17)
    with pytest.raises(ValidationError, match="frozen"):
        Subspace(16).rank = 3


def test_policies_and_aggregators_name_the_parts():
    assert policies.Work is Work
    assert aggregators.Mean is Mean
