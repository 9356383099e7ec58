"""Payloads: every dtype survives, and a layout that does not fit its bytes never becomes a tensor."""

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pluralis_lab.learning.payload as module
from pluralis_lab.errors import WireError
from pluralis_lab.learning.payload import Payload, pack

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.uint16]


@settings(max_examples=80, deadline=None)
@given(
    arrays=st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)), max_size=4),
    seed=st.integers(0, 999),
)
def test_arrays_of_every_dtype_and_shape_survive(arrays, seed):
    generator = torch.Generator().manual_seed(seed)
    named = [
        (f"a{i}", (torch.randn(shape, generator=generator) * 100).abs().to(dtype)) for i, (dtype, shape) in enumerate(arrays)
    ]
    payload = pack(named)
    out = Payload(payload.layout, payload.data).tensors()
    assert list(out) == [name for name, _ in named]
    for name, tensor in named:
        assert out[name].dtype == tensor.dtype
        assert out[name].shape == tensor.shape
        assert out[name].flatten().view(torch.uint8).tolist() == tensor.contiguous().flatten().view(torch.uint8).tolist()


def test_nan_and_negative_zero_keep_their_bits():
    tensor = torch.tensor([float("nan"), -0.0, float("inf")])
    out = pack([("x", tensor)]).tensors()["x"]
    assert torch.equal(out.view(torch.int32), tensor.view(torch.int32))


def test_a_view_is_packed_as_it_looks_and_what_comes_out_may_be_changed():
    whole = torch.arange(12.0).view(3, 4)
    out = pack([("x", whole.T)]).tensors()["x"]
    assert torch.equal(out, whole.T)
    out.zero_()
    assert whole.sum() == 66


@pytest.mark.parametrize(
    ("layout", "data", "says"),
    [
        ((("x", "f4", (2,)),), b"1234567", "7 bytes"),
        ((("x", "f4", (2,)),), b"123456789", "9 bytes"),
        ((), b"1", "1 bytes"),
        ((("x", "f2", (2,)),), b"1234", "'f2'"),
        ((("x", "pickle", ()),), b"", "'pickle'"),
        ((("x", "f4", (-1,)),), b"", "(-1,)"),
        ((("x", "f4", (-2, -1)),), b"12345678", "(-2, -1)"),
        ((("x", "f4", (0, 2**63)),), b"", "shape"),
        ((("x", "f4", (0, 2**30, 2**30)),), b"", "shape"),
        ((("x", "f4", (1,)), ("x", "f4", (1,))), b"12345678", "twice"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(layout, data, says):
    with pytest.raises(WireError) as raised:
        Payload(layout, data)
    assert says in str(raised.value)


@settings(max_examples=150, deadline=None)
@given(
    layout=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["f8", "f4", "bf16", "i8", "i4", "u2", "zz"]),
            st.lists(st.one_of(st.integers(-2, 4), st.integers(2**31, 2**63)), max_size=4).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    data=st.binary(max_size=64),
)
def test_any_layout_is_refused_or_can_be_read(layout, data):
    try:
        payload = Payload(layout, data)
    except WireError:
        return
    assert [tuple(tensor.shape) for tensor in payload.tensors().values()] == [shape for _, _, shape in layout]


def test_a_dtype_that_does_not_travel_is_refused():
    with pytest.raises(WireError, match=r"torch\.complex64"):
        pack([("x", torch.zeros(2, dtype=torch.complex64))])


def test_the_digest_covers_layout_and_data():
    digests = {
        pack([("x", torch.zeros(4))]).digest,
        pack([("y", torch.zeros(4))]).digest,
        pack([("x", torch.zeros(2, 2))]).digest,
        pack([("x", torch.zeros(2, dtype=torch.float64).view(2))]).digest,
        pack([("x", torch.zeros(2)), ("y", torch.zeros(2))]).digest,
        pack([("x", torch.ones(4))]).digest,
    }
    assert len(digests) == 6
    assert pack([("x", torch.zeros(4))]).digest == pack([("x", torch.zeros(4))]).digest


def test_nothing_here_can_unpickle():
    tree = ast.parse(Path(module.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"pickle", "cloudpickle", "dill", "marshal", "load"}
    assert not attributes & {"load", "loads", "Unpickler"}
