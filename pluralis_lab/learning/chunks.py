"""How a stage's flat gradient is cut into chunks, which replicas add up for each other (``FullSync(transport="butterfly")``).

The cuts depend on the stage's size alone, never on who is there, so that a chunk means the same to everybody whoever dies.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pluralis_lab.contributions.agreement import measure_totals
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.aggregation import added_up
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.payload import Layout, Payload, joined, pack
from pluralis_lab.learning.usable import largest_sum, unusable
from pluralis_lab.learning.wire_cost import BLOCK

MAX_CHUNKS = 64
"""Of a stage. More replicas than that are never needed to add up; with fewer the largest share is near the mean."""

HASHES, MEASURES = "h", "m"

MEASURES_AGREE = 1e-9
"""Relative to their size: far above what rounding in float64 makes of sums over a chunk, far below what anybody looks at."""


def chunk_bounds(size: int) -> list[tuple[int, int]]:
    """Return (first, end) of each chunk of an array of `size` numbers, cut between blocks of the 8-bit format."""
    blocks = math.ceil(size / BLOCK)
    count = min(MAX_CHUNKS, blocks)
    edges = [BLOCK * (blocks * number // count) for number in range(count)]
    return list(zip(edges, [*edges[1:], size], strict=True))


def hashes_layout(size: int) -> Layout:
    """Return the layout of a contribution that says which chunks belong to it: a SHA-256 each."""
    return ((HASHES, "u1", (len(chunk_bounds(size)), 32)),)


class ChunkedSums:
    """One stage replica's arithmetic on chunks.

    format : how numbers are written on the wire, chunks and their sums alike
    size : weights of the stage
    """

    def __init__(self, format: FlatFormat, size: int) -> None:
        self.format, self.size, self.bounds = format, size, chunk_bounds(size)

    def cut(self, gradient: Tensor) -> tuple[Payload, tuple[Payload, ...]]:
        """Return the hashes of the chunks of `gradient` `[size]`, which stand for it, and the chunks."""
        pieces = tuple(self.format.write(gradient[first:end]) for first, end in self.bounds)
        hashes = bytearray(b"".join(bytes.fromhex(piece.digest) for piece in pieces))
        return pack([(HASHES, torch.frombuffer(hashes, dtype=torch.uint8).view(-1, 32))]), pieces

    def piece_layout(self, chunk: int) -> Layout:
        """Return the only layout that a replica's `chunk` may have."""
        first, end = self.bounds[chunk]
        return self.format.layout(end - first)

    def sum_layout(self, chunk: int, num_parts: int) -> Layout:
        """Return the only layout that the sum of `num_parts` replicas' `chunk` may have."""
        return (*self.piece_layout(chunk), (MEASURES, "f8", (2 * num_parts + 1,)))

    def reduce(self, task: tasks.Reduce) -> tasks.ReduceDone:
        """Add up a chunk, and say what the replicas' norms and agreements are made of.

        Beside the sum travel, in float64, ‖g_i‖² and ⟨g_i, Σ g⟩ for each part i in order, and ‖Σ g‖², of this chunk. What
        somebody else said must be the same to the bit in the sum, and within rounding in these: another processor adds up
        products in another order. There is no sum where a piece cannot be computed with.
        """
        first, end = self.bounds[task.chunk]
        rows = [self.format.read(piece, end - first) for piece in task.pieces]
        authors = [worker for worker, _ in task.parts]
        if found := unusable(dict(zip(authors, rows, strict=True)), f"chunk {task.chunk} of its gradient of round {task.round}"):
            return tasks.ReduceDone(None, agrees=False, unusable=found)
        total = added_up(rows)
        wide = torch.stack(rows).double()
        wide_total = wide.sum(dim=0)
        measures = torch.cat([(wide * wide).sum(dim=1), wide @ wide_total, (wide_total @ wide_total).view(1)])
        written = self.format.write(total)
        agrees = task.said is None or (task.said.first(1).digest == written.digest and _are_close(task.said, measures))
        return tasks.ReduceDone(joined(written, [(MEASURES, measures)]), agrees)

    def inspect(self, task: tasks.Inspect) -> tasks.InspectDone:
        """Return norms and agreements, from what came with the sums; or which of the sums are none of usable pieces."""
        gradient = self.put_together(task.sums, task.round)
        bound = largest_sum(gradient.dtype)
        highest = [float(gradient[first:end].abs().max()) for first, end in self.bounds]
        false = tuple(chunk for chunk, found in enumerate(highest) if not found <= bound)  # NaN fails every comparison
        if false:
            return tasks.InspectDone({}, {}, false_sums=false)
        workers = [part.worker for part in task.parts]
        totals = torch.stack([entry.tensors()[MEASURES] for entry in task.sums]).sum(dim=0).tolist()
        count = len(workers)
        return tasks.InspectDone(*measure_totals(workers, totals[:count], totals[count : 2 * count], totals[-1]))

    def gradient(self, sums: Sequence[Payload], round_: int) -> Tensor:
        """Return the round's gradient `[size]`. Raises WireError where it is not finite or not whole."""
        gradient = self.put_together(sums, round_)
        if not torch.isfinite(gradient).all():
            raise WireError(f"the sum of round {round_} has NaN or infinity; report this as a bug")
        return gradient

    def put_together(self, sums: Sequence[Payload], round_: int) -> Tensor:
        """Return the array `[size]` of which all chunks, or what they add up to, are given. Raises WireError for too few."""
        if len(sums) != len(self.bounds):
            raise WireError(f"{len(sums)} chunks of a gradient in round {round_}, expected {len(self.bounds)}")
        arrays = [self.format.read(entry.first(1), end - first) for entry, (first, end) in zip(sums, self.bounds, strict=True)]
        return torch.cat(arrays)


def _are_close(said: Payload, measures: Tensor) -> bool:
    """Whether the measures that came with a sum are `measures`, but for rounding."""
    return torch.allclose(
        said.tensors()[MEASURES], measures, rtol=MEASURES_AGREE, atol=MEASURES_AGREE * float(measures.abs().max())
    )


def sums_digest(sums: Sequence[Payload]) -> str:
    """Return what replicas compare to see that they step along the same gradient: SHA-256, 64 hexadecimal characters."""
    return hashlib.sha256("".join(entry.first(1).digest for entry in sums).encode()).hexdigest()
