"""Int8 and TopK lose what they say they lose, and no more; and a model still learns through them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.errors import RunSpecError, WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.codecs.int8 import LEVELS, Int8Codec
from pluralis_lab.learning.codecs.topk import TopKCodec
from pluralis_lab.learning.payload import pack
from pluralis_lab.learning.reference import train
from pluralis_lab.parts import MLP, Int8, TopK
from pluralis_lab.spec import RunSpec

DTYPES = (torch.float32, torch.float64)


@st.composite
def rows(draw, width=8):
    dtype = draw(st.sampled_from(DTYPES))
    size = 10.0 ** draw(st.integers(-20, 20))
    numbers = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=width, max_size=width)
    return torch.tensor([draw(numbers), draw(numbers)], dtype=dtype) * size


@given(rows())
def test_a_byte_is_at_most_half_a_step_off(x):
    codec = Int8Codec(dtype=x.dtype)
    wire = codec.encode(x, None)
    assert (wire.shape, wire.dtype) == ((2, *codec.row(8)[:1]), torch.uint8)
    back = codec.decode(wire, None, 8)
    largest = x.abs().amax(dim=-1, keepdim=True)
    # Half a step, and what float32 rounds of the scale; what is below its range is zero.
    assert ((back - x).abs() <= largest * (0.5 / LEVELS + 1e-6) + torch.finfo(torch.float32).tiny).all()
    assert torch.equal(codec.decode_gradient(codec.encode_gradient(x), 8), back)


@pytest.mark.parametrize("width", [5, 96, 97, 98, 99])
@pytest.mark.parametrize("codec", [Int8Codec(torch.float32), TopKCodec(3, torch.float32)], ids=["int8", "topk"])
def test_a_single_row_of_any_width_comes_through(codec, width):
    x = torch.randn(1, width, generator=torch.Generator().manual_seed(width))
    back = codec.decode(codec.encode(x, None), None, width)
    assert back.shape == x.shape
    kept = back != 0
    assert (back[kept] - x[kept]).abs().max() < 0.02


@pytest.mark.parametrize("size", [1e-30, 1e-37, 3e-38])
def test_small_numbers_are_scaled_like_large_ones(size):
    codec = Int8Codec(torch.float32)
    x = torch.tensor([[1.0, 0.5, 0.2, 0.0, -1.0]]) * size
    assert ((codec.decode(codec.encode(x, None), None, 5) - x).abs() <= size * 0.6 / LEVELS).all()


def test_a_row_of_zeros_stays_one():
    codec = Int8Codec(dtype=torch.float64)
    x = torch.zeros(3, 5, dtype=torch.float64)
    assert torch.equal(codec.decode(codec.encode(x, None), None, 5), x)


@given(rows(), st.integers(1, 8))
def test_the_largest_arrive_in_bfloat16_and_the_rest_as_zero(x, count):
    codec = TopKCodec(count, dtype=x.dtype)
    wire = codec.encode(x, None)
    assert (wire.shape, wire.dtype) == ((2, 4 * count), torch.uint8)
    back = codec.decode(wire, None, 8)
    for sent, row in zip(back, x, strict=True):
        kept = sent != 0
        assert int(kept.sum()) <= count
        assert torch.equal(sent[kept], row[kept].to(torch.bfloat16).to(x.dtype))
        left = row[~kept].abs().max() if bool((~kept).any()) else torch.tensor(0.0)
        if int(kept.sum()) == count:
            assert left <= row[kept].abs().min()


def test_all_numbers_of_a_row_are_the_row_in_bfloat16():
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codec = TopKCodec(6, dtype=torch.float64)
    assert torch.equal(codec.decode(codec.encode(x, None), None, 6), x.to(torch.bfloat16).to(torch.float64))


def test_a_place_outside_the_row_is_refused():
    codec = TopKCodec(2, dtype=torch.float32)
    wire = codec.encode(torch.randn(3, 9), None)
    with pytest.raises(WireError, match=r"place [5-8] of a row that has 5"):
        codec.decode(torch.cat([wire[:, :4], torch.tensor([[4, 0, 8, 0]] * 3, dtype=torch.uint8)], dim=-1), None, 5)


def test_a_place_that_is_given_twice_is_refused():
    codec = TopKCodec(2, dtype=torch.float32)
    wire = codec.encode(torch.randn(3, 9), None)
    with pytest.raises(WireError, match="do not ascend"):
        codec.decode(torch.cat([wire[:, :4], torch.tensor([[4, 0, 4, 0]] * 3, dtype=torch.uint8)], dim=-1), None, 9)


@pytest.mark.parametrize("boundary", [Int8(), TopK(8)], ids=lambda part: part.kind)
def test_the_loss_through_the_wire_follows_the_one_without(boundary, make_spec, pipeline, corpus):
    spec = make_spec(boundary=boundary)
    here = pipeline(spec)
    without = make_spec(boundary=boundary, stages=1)
    losses = [(here.step(step.round)[0], step.loss) for step in train(without, corpus, steps=6)]
    assert all(lossy != exact for lossy, exact in losses)
    assert all(math.isclose(lossy, exact, rel_tol=0.05) for lossy, exact in losses), losses


@pytest.mark.parametrize("boundary", [Int8(), TopK(8)], ids=lambda part: part.kind)
@pytest.mark.parametrize("array", ["z", "g"])
def test_a_message_of_another_codec_is_refused_and_nothing_is_counted(boundary, array, make_spec, pipeline, corpus):
    spec = make_spec(boundary=boundary, stages=2)
    here = pipeline(spec)
    head, tail = here.stages
    sent = head.run(tasks.Forward(0, 0, None)).output
    size = (spec.micro_batch_size, spec.model.context, spec.model.d_model)
    wrong = torch.zeros(size, dtype=torch.float32)
    if array == "z":
        taker, task = tail, tasks.Forward(0, 0, pack([("z", wrong), ("ids", sent.tensors()["ids"])]))
    else:
        taker, task = head, tasks.Backward(0, 0, pack([("g", wrong)]))
    with pytest.raises(WireError, match=r"dtype torch\.float32 "):
        taker.run(task)
    done = tail.run(tasks.Forward(0, 0, sent))
    head.run(tasks.Backward(0, 0, done.gradient))


def test_more_numbers_than_a_boundary_has_are_refused():
    with pytest.raises(RunSpecError, match=r"TopK\(200\) sends more numbers than a boundary of width 128 has; use count <= 128"):
        RunSpec(stages=2, boundary=TopK(200))
    with pytest.raises(RunSpecError, match=r"TopK\(20\) .* width 16 has"):
        RunSpec(model=MLP([64, 96, 16, 10]), data="digits", stages=3, boundary=TopK(20))
    with pytest.raises(RunSpecError, match="16 bits"):
        RunSpec(model=MLP([64, 70_000, 10]), data="digits", stages=2, boundary=TopK(20))


def test_the_schema_and_the_text_of_a_spec_know_them():
    for boundary in (Int8(), TopK(12)):
        spec = RunSpec(stages=2, boundary=boundary)
        assert RunSpec.from_json(spec.to_json()) == spec
        assert repr(boundary) in repr(spec)
