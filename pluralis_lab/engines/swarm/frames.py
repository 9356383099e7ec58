"""Length-prefixed frames on a byte stream: between workers, and between a worker or a kernel and the supervisor."""

import asyncio
import json
from typing import Any

from pluralis_lab.errors import WireError
from pluralis_lab.foreign_json import parse_foreign

PREFIX_BYTES = 8


async def read_frame(reader: asyncio.StreamReader, *, limit_bytes: int) -> bytes | None:
    """Return the next frame, None at the end of the stream.

    Raises WireError for a frame that announces more than `limit_bytes`, before anything of it is read.
    """
    try:
        size = int.from_bytes(await reader.readexactly(PREFIX_BYTES), "big")
        if size > limit_bytes:
            raise WireError(f"a frame announces {size:,} bytes, the limit here is {limit_bytes:,}")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def frame(data: bytes) -> bytes:
    """Return `data` with its length before it."""
    return len(data).to_bytes(PREFIX_BYTES, "big") + data


def json_frame(value: dict[str, Any]) -> bytes:
    """Return `value` as JSON with its length before it; what is no text (half a character of a file's name) becomes "?"."""
    return frame(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


async def read_json(reader: asyncio.StreamReader, *, limit_bytes: int = 1 << 26) -> dict[str, Any] | None:
    """Return the next frame as a JSON object, None at the end. Raises WireError for anything else."""
    data = await read_frame(reader, limit_bytes=limit_bytes)
    if data is None:
        return None
    try:
        value = parse_foreign(data)
    except ValueError as error:
        raise WireError(f"a frame of {len(data)} bytes is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise WireError(f"a frame holds a JSON {type(value).__name__}, not an object")
    return value
