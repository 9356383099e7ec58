"""Large messages that can wait travel in pieces, so that a small one that training waits for is not kept behind them."""

from collections.abc import Iterator

from pluralis_lab.errors import WireError
from pluralis_lab.worker.messages import Displacement, Message, StateChunk

PIECE_BYTES = 1 << 13
"""At 10 Mbit/s a piece delays what comes after it by 7 ms."""

_MARK = b"\xff\xff\xff\xff"
"""No message begins so: it would announce a header of four gigabytes."""


def may_wait(message: Message) -> bool:
    """Whether others go on training while `message` is on its way."""
    return isinstance(message, Displacement | StateChunk)


def cut(data: bytes) -> Iterator[bytes]:
    """Cut an encoded message into frames that `Assembly` puts together again."""
    for start in range(0, len(data), PIECE_BYTES):
        is_last = start + PIECE_BYTES >= len(data)
        yield _MARK + bytes([is_last]) + data[start : start + PIECE_BYTES]


def piece_sizes(size_bytes: int, *, most: int | None = None) -> list[int]:
    """Return how large the frames of `cut` are for a message of so many bytes; with `most`, in no more than so many pieces."""
    piece = PIECE_BYTES if most is None else max(PIECE_BYTES, -(-size_bytes // most))
    return [len(_MARK) + 1 + min(piece, size_bytes - start) for start in range(0, size_bytes, piece)]


class Assembly:
    """Puts the pieces of one sender together; they come in order, one message after the other.

    limit_bytes : no message may be larger
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()

    def take(self, frame: bytes) -> bytes | None:
        """Return the message that `frame` is or completes, else None. Raises WireError for one that grows too large."""
        if not frame.startswith(_MARK):
            return frame
        self._data += frame[len(_MARK) + 1 :]
        if len(self._data) > self._limit_bytes:
            raise WireError(f"a message in pieces has {len(self._data):,} bytes already, the limit here is {self._limit_bytes:,}")
        if frame[len(_MARK) : len(_MARK) + 1] != b"\x01":
            return None
        whole, self._data = bytes(self._data), bytearray()
        return whole
