"""Numbers that depend on a seed and a name only, so that every worker draws the same without talking to the others."""

import hashlib

import numpy as np
import torch


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """Return a counter-based generator (Philox) whose key is the SHA-256 of `seed` and `name`."""
    key = hashlib.sha256("/".join(["pluralis-lab", str(seed), *map(str, name)]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)))


def normal(seed: int, name: str, shape: tuple[int, ...], std: float, dtype: torch.dtype) -> torch.Tensor:
    """Draw `shape` normal numbers in float64 and round them to `dtype` last, so that float32 runs start near float64 ones."""
    return torch.from_numpy(generator(seed, name).standard_normal(shape) * std).to(dtype)


def orthonormal(seed: int, name: str, rows: int, columns: int) -> np.ndarray:
    """Return `rows` x `columns` orthonormal columns: QR of a normal matrix in float64, signs fixed so that R's diagonal is > 0.

    The sign fix makes the result unique, hence equal on machines with different LAPACKs up to rounding.
    """
    q, r = np.linalg.qr(generator(seed, name).standard_normal((rows, columns)))
    return np.asarray(q * np.sign(np.diag(r)), dtype=np.float64)
