"""A stage's state in chunks: how large they are, and the hashes by which each is known before it comes."""

import hashlib

CHUNK_BYTES = 1 << 17
"""At 100 Mbit/s one takes 10 ms."""
MOST_CHUNKS = 2048
HASH_BYTES = 32


def largest_state_bytes(num_weights: int, *, is_local: bool) -> int:
    """Return what no state of so many weights exceeds: them, two moments and names; where replicas train locally more copies."""
    copies = 7 if is_local else 4  # anchor, velocity and snapshot of an exchange
    return (1 << 20) + copies * 8 * num_weights


def chunk_bytes(size_bytes: int) -> int:
    """Return how large each chunk but the last is, of a state of so many bytes: there are never more than `MOST_CHUNKS`."""
    return max(CHUNK_BYTES, -(-size_bytes // MOST_CHUNKS))


def num_chunks(size_bytes: int) -> int:
    """Return how many chunks such a state has, at least one."""
    return max(1, -(-size_bytes // chunk_bytes(size_bytes)))


def chunk_of(state: bytes, index: int) -> bytes:
    """Return chunk `index` of `state`."""
    step = chunk_bytes(len(state))
    return state[index * step : (index + 1) * step]


def size_of_chunk(size_bytes: int, index: int) -> int:
    """Return how many bytes chunk `index` of such a state has."""
    step = chunk_bytes(size_bytes)
    return min(step, size_bytes - index * step)


def hash_of(chunk: bytes) -> bytes:
    """Return the SHA-256 of a chunk."""
    return hashlib.sha256(chunk).digest()


def hashes_of(state: bytes) -> bytes:
    """Return the SHA-256 of every chunk of `state`, one behind the other."""
    return b"".join(hash_of(chunk_of(state, index)) for index in range(num_chunks(len(state))))


def hash_at(hashes: bytes, index: int) -> bytes:
    """Return that of chunk `index`."""
    return hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]
