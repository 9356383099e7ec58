"""What replicas send each other as a flat array: bounds of the error, refusals, and a self-test that can fail."""

import pytest
import torch

import pluralis_lab.learning.flat_format as module
from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning.codecs.int8 import restored
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.local_sync import part_size
from pluralis_lab.learning.payload import pack
from pluralis_lab.learning.wire_cost import sync_bytes_per_weight
from pluralis_lab.parts import DiLoCo, FullSync, SliceSync
from pluralis_lab.spec import RunSpec

PAYLOADS = ["same", "bfloat16", "int8"]
DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 5000])
def test_what_is_read_is_what_was_written_within_the_bound(payload: str, dtype: torch.dtype, size: int) -> None:
    flat = torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(size)) * 3
    form = FlatFormat(payload, dtype)
    sent = form.write(flat)
    assert sent.layout == form.layout(size)
    back = form.read(sent, size)
    assert back.dtype == dtype
    error = (back - flat).abs()
    if payload == "same":
        assert torch.equal(back, flat)
    elif payload == "bfloat16":
        assert bool((error <= flat.abs() * 2.0**-8).all())
    else:
        for start in range(0, size, 1024):
            block = slice(start, start + 1024)
            assert float(error[block].max()) <= float(flat[block].abs().max()) * (0.5 / 127) * (1 + 1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_its_author_goes_on_with_the_bits_that_the_others_read(payload: str, dtype: torch.dtype) -> None:
    """Also where it does not read them: subnormal numbers, zeros of both signs, and what is no number are the same bits."""
    tiny, whole = torch.finfo(dtype), {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    flat = torch.randn(5000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    flat[:6] = torch.tensor([0.0, -0.0, tiny.tiny / 3, -tiny.tiny / 5, tiny.max, tiny.eps], dtype=dtype)
    if payload == "same":
        flat[6:9] = torch.tensor([float("inf"), -float("inf"), float("nan")], dtype=dtype)
    form = FlatFormat(payload, dtype)
    written = form.write(flat)
    kept = form.as_read(flat, written)
    assert torch.equal(kept.view(whole), form.read(written, len(flat)).view(whole))
    assert (kept is flat) == (payload == "same")


def test_an_array_of_another_format_is_not_taken_for_what_was_written() -> None:
    form = FlatFormat("same", torch.float32)
    flat = torch.ones(10, dtype=torch.float64)
    with pytest.raises(WireError, match="laid out as"):
        form.as_read(flat, form.write(flat))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_another_layout_is_refused(payload: str) -> None:
    form = FlatFormat(payload, torch.float32)
    for wrong in (
        form.write(torch.ones(3000)),
        pack([("x", torch.ones(10))]),
        pack([("g", torch.ones(10, dtype=torch.float64))]),
    ):
        with pytest.raises(WireError, match="laid out as"):
            form.read(wrong, 10)


def test_the_self_test_sees_a_codec_that_averages_half_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """As hivemind's does on numpy >= 2.4, which reports success."""
    FlatFormat("int8", torch.float32).self_test()
    monkeypatch.setattr(module, "restored", lambda wire, dtype: restored(wire, dtype) * (torch.arange(len(wire)) < 2)[:, None])
    with pytest.raises(RunError, match="averages with an error of"):
        FlatFormat("int8", torch.float32).self_test()


def test_a_slice_every_twenty_rounds_is_a_four_hundredth_of_the_weights_a_round() -> None:
    spec = RunSpec(replicas=4, sync=SliceSync(fraction=0.05, every=20), steps=400)
    assert sync_bytes_per_weight(spec) == pytest.approx(4 / 400)
    sizes = [part_size(spec, round_, 100_003) for round_ in range(19, 399, 20)]
    assert sum(sizes) == pytest.approx(100_003 * 19 / 20, abs=20)
    assert part_size(spec, 399, 100_003) == 100_003
    assert sync_bytes_per_weight(RunSpec(replicas=2, sync=DiLoCo(10, payload="bfloat16"))) == pytest.approx(0.2)
    butterfly = RunSpec(replicas=4, sync=FullSync(transport="butterfly"))
    assert sync_bytes_per_weight(butterfly) == pytest.approx(2.0)  # to each of three others; 4.0 over gather
    assert sync_bytes_per_weight(RunSpec(replicas=2, sync=FullSync(payload="int8"))) == pytest.approx(1 + 4 / 1024)
