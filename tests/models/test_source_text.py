"""The text of a notebook's factory: complete, executable alone, and refused with the name of what it cannot hold."""

import subprocess
import sys

import pytest
import torch

import pluralis_lab as pl
from pluralis_lab.errors import RunSpecError
from pluralis_lab.models.source_text import source_of
from tests.models import own_blocks

CELL = '''
import torch, torch.nn.functional as F
from torch import nn
from torch.nn import Linear as Projection
import pluralis_lab as pl

WIDTH, NAMES = 12, ("a", "b")
NEG, BOUNDS, NOTHING, ALONE = float("-inf"), (float("inf"), -1.5, None), float("nan"), (float("-inf"),)
table = nn.Embedding(4, 4)

def scaled(x, by=2.0):
    return x * by

class Base(nn.Module):
    def about(self):
        return NAMES

class Block(Base):
    """A block of a notebook."""
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        scaled_not = [F for F in range(2)]
        return x + torch.tanh(scaled(self.inner(x)))

def factory(width=WIDTH, layers: int = 2):
    yield nn.Embedding(256, width)
    for _ in range(layers):
        yield Block(width)
    yield Projection(width, 256)

def masked(width=4):
    yield nn.Embedding(256, width)
    assert torch.full((2,), NEG).isneginf().all() and BOUNDS[0] > 1e300 and NOTHING != NOTHING and ALONE == (NEG,)
    yield Projection(width, 256)

def needs_an_object():
    return [table]

def around(width):
    def inner():
        return [nn.Linear(width, 2)]
    return inner

def needs_what_is_not_there():
    return [Missing()]
'''


@pytest.fixture(scope="module")
def cell():
    """What a notebook's user has after running the cell: the names, as IPython keeps them."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell(CELL, store_history=True).raise_error()
    return shell.user_ns


def test_everything_of_the_notebook_that_the_factory_needs_comes_along(cell):
    model = pl.Blocks.from_source(cell["factory"], context=8, options={"layers": 1})
    for line in ("class Base(nn.Module):", "class Block(Base):", "def scaled(x, by=2.0):", "WIDTH = 12", "NAMES = ('a', 'b')"):
        assert line in model.source
    assert "from torch.nn.modules.linear import Linear as Projection" in model.source
    assert "table" not in model.source
    assert [block.name for block in model.blocks] == ["Embedding", "Block", "Linear"]
    # In a process that has never seen the notebook.
    code = f"import pluralis_lab as pl; print(len(pl.Blocks(factory='factory', context=8, source={model.source!r}).blocks))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "4"


def test_numbers_that_are_not_finite_come_along(cell):
    text = pl.Blocks.from_source(cell["masked"], context=8).source
    for line in (
        "NEG = float('-inf')",
        "BOUNDS = (float('inf'), -1.5, None)",
        "NOTHING = float('nan')",
        "ALONE = (float('-inf'),)",
    ):
        assert line in text.splitlines()


def test_a_plain_value_of_another_type_is_named_instead_of_written_as_what_nobody_can_read(cell):
    import enum

    import numpy

    for value in (numpy.float64(0.5), enum.IntEnum("Level", "LOW").LOW, torch.Size([2]), (numpy.float64(0.5),)):
        cell["NEG"] = value
        try:
            with pytest.raises(RunSpecError, match="uses NEG, which has no text"):
                source_of(cell["masked"])
        finally:
            cell["NEG"] = float("-inf")


def test_a_factory_of_a_file_has_a_text_too():
    text = source_of(own_blocks.mixed)
    assert "class CausalConv(nn.Module):" in text
    assert "LooksAhead" not in text
    assert (
        pl.Blocks.from_source(own_blocks.mixed, context=8).blocks == pl.Blocks("tests.models.own_blocks:mixed", context=8).blocks
    )


def test_the_hash_is_of_the_text(cell):
    one, other = (pl.Blocks.from_source(cell["factory"], context=8, options={"layers": n}) for n in (1, 2))
    assert one.source_hash == other.source_hash
    assert len(one.source_hash) == 64
    assert one.accept_hash != other.accept_hash
    assert pl.RunSpec(model=one).hash != pl.RunSpec(model=other).hash
    assert pl.Blocks("tests.models.own_blocks:mixed", context=8).source_hash is None


def test_what_has_no_text_is_named_with_the_remedy(cell):
    with pytest.raises(RunSpecError, match=r"uses table, which has no text \(it is of type Embedding\); make it in"):
        source_of(cell["needs_an_object"])
    with pytest.raises(RunSpecError, match="inner uses width of the function around it; pass it as one of the factory's options"):
        source_of(cell["around"](3))
    with pytest.raises(RunSpecError, match="uses Missing, which is not defined"):
        source_of(cell["needs_what_is_not_there"])
    with pytest.raises(RunSpecError, match="a lambda has no text"):
        source_of(lambda: [1])
    with pytest.raises(RunSpecError, match="no function"):
        source_of(7)


def test_an_error_in_the_text_shows_its_line():
    with pytest.raises(RunSpecError) as caught:
        pl.Blocks(factory="made", context=8, source="def made():\n    width = 1 // 0\n    return []\n")
    import traceback

    shown = "".join(traceback.format_exception(caught.value))
    assert "width = 1 // 0" in shown
