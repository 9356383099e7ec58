"""Frames from anybody: the limit is looked at before anything is read, and what is no JSON object is refused."""

import asyncio
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from pluralis_lab.engines.swarm.frames import PREFIX_BYTES, frame, read_frame, read_json
from pluralis_lab.errors import WireError


def stream_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    return reader


@pytest.mark.parametrize("size", [2**64 - 1, 2**40, (1 << 16) + 1])
async def test_a_frame_above_the_limit_is_refused_at_its_first_bytes_and_takes_no_memory(size: int) -> None:
    reader = stream_of(size.to_bytes(PREFIX_BYTES, "big"))  # nothing follows: whoever waited for it would wait for ever
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match=f"announces {size:,} bytes"):
            await asyncio.wait_for(read_frame(reader, limit_bytes=1 << 16), 5)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


async def test_a_frame_within_the_limit_takes_no_more_memory_than_has_come() -> None:
    reader = stream_of((1 << 30).to_bytes(PREFIX_BYTES, "big") + b"x")
    tracemalloc.start()
    try:
        reading = asyncio.create_task(read_frame(reader, limit_bytes=1 << 31))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not reading.done()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        reader.feed_eof()
        assert await reading is None
    finally:
        tracemalloc.stop()


@pytest.fixture
def recursion_limit() -> Iterator[None]:
    """The recursion limit that py_ecc sets."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff", b"[1,2]", b"3", b"{", b"[" * 99_000, b'{"a":' * 99_000, b"9" * 50_000, b'{"a":NaN}'],
    ids=["nothing", "no text", "a list", "a number", "cut", "deep lists", "deep objects", "a long number", "no number"],
)
async def test_what_is_no_json_object_is_a_wire_error_and_nothing_else(text: bytes, recursion_limit: None) -> None:
    with pytest.raises(WireError):
        await read_json(stream_of(frame(text)), limit_bytes=1 << 20)
