"""Chunks of a gradient: they cover it, add up to what all gradients add up to, and say as much about them."""

import itertools

import numpy as np
import pytest
import torch

from pluralis_lab.contributions.agreement import measure, measure_totals
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.aggregation import weighted_mean
from pluralis_lab.learning.chunks import MAX_CHUNKS, ChunkedSums, chunk_bounds, hashes_layout, sums_digest
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.payload import pack

SIZES = [1, 1023, 1024, 1025, 5000, 64 * 1024, 64 * 1024 + 1, 1_000_003]


@pytest.mark.parametrize("size", SIZES)
def test_chunks_cover_every_number_once_and_are_cut_between_blocks(size):
    bounds = chunk_bounds(size)
    assert 1 <= len(bounds) <= MAX_CHUNKS
    assert bounds[0][0] == 0
    assert bounds[-1][1] == size
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(bounds))
    assert all(first < end and first % 1024 == 0 for first, end in bounds)
    sizes = [end - first for first, end in bounds]
    assert max(sizes) - min(sizes[:-1], default=max(sizes)) <= 1024


def drawn(size, count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(size + count)
    return {f"worker-{n}": torch.randn(size, generator=generator, dtype=dtype) + 0.3 for n in range(count)}


def sums_of(chunked, gradients):
    """Return the contributions' hashes by worker, and the sums of all chunks."""
    cuts = {name: chunked.cut(gradient) for name, gradient in gradients.items()}
    parts = tuple((name, hashes.digest) for name, (hashes, _) in cuts.items())
    totals = [
        chunked.reduce(tasks.Reduce(0, parts, chunk, tuple(pieces[chunk] for _, pieces in cuts.values()))).total
        for chunk in range(len(chunked.bounds))
    ]
    return {name: hashes for name, (hashes, _) in cuts.items()}, tuple(totals)


def inspected(chunked, hashes, sums):
    parts = tuple(tasks.Part(name, (n,), entry) for n, (name, entry) in enumerate(hashes.items()))
    return chunked.inspect(tasks.Inspect(0, parts, sums))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [700, 5000])
def test_the_sum_of_all_chunks_is_the_sum_of_the_gradients_and_so_are_norms_and_agreements(size, count):
    gradients = drawn(size, count)
    chunked = ChunkedSums(FlatFormat("same", torch.float64), size)
    hashes, sums = sums_of(chunked, gradients)
    whole = weighted_mean(gradients, dict.fromkeys(gradients, 1), total=count)
    assert torch.equal(chunked.gradient(sums, 0), whole)
    found = inspected(chunked, hashes, sums)
    norms, cosines = measure({name: [gradient.numpy()] for name, gradient in gradients.items()})
    assert found.norms == pytest.approx(norms, rel=1e-12)
    assert found.agreements == (cosines if count == 1 else pytest.approx(cosines, rel=1e-10))
    for entry in hashes.values():
        assert entry.layout == hashes_layout(size)
    for chunk, total in enumerate(sums):
        assert total.layout == chunked.sum_layout(chunk, count)


@pytest.mark.parametrize(("payload", "error"), [("bfloat16", 2**-7), ("int8", 0.02)])
def test_lossy_formats_lose_no_more_than_they_say(payload, error):
    gradients = drawn(5000, 3, torch.float32)
    chunked = ChunkedSums(FlatFormat(payload, torch.float32), 5000)
    hashes, sums = sums_of(chunked, gradients)
    whole = sum(gradients.values())
    assert float((chunked.gradient(sums, 0) - whole).abs().max() / whole.abs().max()) < error
    assert inspected(chunked, hashes, sums).norms["worker-0"] == pytest.approx(float(gradients["worker-0"].norm()), rel=error)


def test_a_hash_stands_for_one_chunk():
    gradients = drawn(5000, 1)
    chunked = ChunkedSums(FlatFormat("same", torch.float64), 5000)
    hashes, pieces = chunked.cut(gradients["worker-0"])
    data = hashes.only("h").data
    assert [data[32 * n : 32 * n + 32].hex() for n in range(len(pieces))] == [piece.digest for piece in pieces]
    other = gradients["worker-0"].clone()
    other[4096] += 1e-9
    changed = [a != b for a, b in zip(pieces, chunked.cut(other)[1], strict=True)]
    assert changed == [False, False, False, False, True]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_by_whoever_adds_up_and_by_whoever_takes_the_sum(bad):
    chunked = ChunkedSums(FlatFormat("same", torch.float64), 2000)
    gradients = drawn(2000, 2)
    hashes, sums = sums_of(chunked, gradients)
    gradients["worker-1"][1500] = bad
    cuts = {name: chunked.cut(gradient) for name, gradient in gradients.items()}
    parts = tuple((name, hashes.digest) for name, (hashes, _) in cuts.items())
    pieces = [tuple(pieces[chunk] for _, pieces in cuts.values()) for chunk in range(2)]
    assert chunked.reduce(tasks.Reduce(0, parts, 0, pieces[0])).total is not None
    refused = chunked.reduce(tasks.Reduce(0, parts, 1, pieces[1]))
    assert refused.total is None
    assert list(refused.unusable) == ["worker-1"]
    assert "chunk 1 of its gradient of round 0" in refused.unusable["worker-1"]
    measures = sums[1].only("m").tensors()["m"]
    total = pack([("g", torch.full((976,), bad, dtype=torch.float64)), ("m", measures)])
    assert inspected(chunked, hashes, (sums[0], total)) == tasks.InspectDone({}, {}, false_sums=(1,))
    with pytest.raises(WireError, match="NaN or infinity"):
        chunked.gradient((sums[0], total), 0)
    with pytest.raises(WireError, match="1 chunks of a gradient in round 0, expected 2"):
        chunked.gradient(sums[:1], 0)


def test_what_somebody_else_said_is_compared_to_the_bit_and_its_measures_but_for_rounding():
    chunked = ChunkedSums(FlatFormat("same", torch.float64), 700)
    gradients = drawn(700, 3)
    cuts = {name: chunked.cut(gradient) for name, gradient in gradients.items()}
    parts = tuple((name, hashes.digest) for name, (hashes, _) in cuts.items())
    pieces = tuple(piece for _, (piece,) in cuts.values())
    total = chunked.reduce(tasks.Reduce(0, parts, 0, pieces)).total
    arrays = total.tensors()

    def agrees(numbers, measures):
        said = pack([("g", numbers), ("m", measures)])
        return chunked.reduce(tasks.Reduce(0, parts, 0, pieces, said)).agrees

    assert agrees(arrays["g"], arrays["m"])
    assert agrees(arrays["g"], arrays["m"] * (1 + 1e-13))
    assert not agrees(arrays["g"], arrays["m"] * (1 + 1e-6))
    changed = arrays["g"].clone()
    changed[3] = torch.nextafter(changed[3], torch.tensor(9.0, dtype=torch.float64))
    assert not agrees(changed, arrays["m"])


def test_sums_are_told_apart():
    chunked = ChunkedSums(FlatFormat("same", torch.float64), 2000)
    _, sums = sums_of(chunked, drawn(2000, 2))
    assert sums_digest(sums) != sums_digest(sums[::-1])
    assert len(sums_digest(sums)) == 64


def test_replicas_that_cancel_have_no_direction():
    one = np.ones(100)
    squares, total = [100.0, 100.0, 100.0], 100.0  # one, one, minus one: without the first, the others cancel
    norms, cosines = measure_totals(["a", "b", "c"], squares, [100.0, 100.0, -100.0], total)
    expected = measure({"a": [one], "b": [one], "c": [-one]})
    assert (norms, cosines) == expected
    assert cosines["a"] is None
