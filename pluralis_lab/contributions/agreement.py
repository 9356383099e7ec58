"""Gradient norm and agreement: how long each replica's gradient is, and whether it points where the others' point.

Source: algorithms.md, "Influence from linear sketches" (the other replicas' mean, without one's own term); this is the
exact first form, on the gradients that every replica under `gather` holds anyway. It is shown and gates no payment.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18  # elements widened to float64 at a time, so that a gradient of gigabytes needs no second copy

Gradient = Sequence[NDArray[np.floating]]
"""One replica's gradient: its parameters' arrays, in the same order and of the same shapes for all replicas."""


def gradient_norm(gradient: Gradient) -> float | None:
    """Return the Euclidean norm over all arrays of `gradient`, summed in float64.

    None when it is not finite: a receipt is canonical JSON, which has no NaN, and "undefined" is what it then is.
    """
    norm = math.sqrt(_dot(gradient, gradient))
    return norm if math.isfinite(norm) else None


def agreement(gradient: Gradient, others: Sequence[Gradient]) -> float | None:
    """Return the cosine between `gradient` and the mean of `others`, in [-1, 1].

    None for no others (a single replica), and where either side has norm zero or one that is not finite.
    Raises ValueError when the gradients do not have the same arrays.
    """
    return agreements({"self": gradient, **{f"other-{i}": other for i, other in enumerate(others)}})["self"]


def agreements(gradients: Mapping[str, Gradient]) -> dict[str, float | None]:
    """Return for each worker the cosine between its gradient and the mean of the others', as `agreement` does.

    One pass over the data for all replicas of a stage. Raises ValueError when they do not have the same arrays.
    """
    names = list(gradients)
    own = np.zeros(len(names))
    rest = np.zeros(len(names))
    dot = np.zeros(len(names))
    with np.errstate(all="ignore"):  # NaN and infinity are a worker's fault and become None below
        for rows in _chunks([gradients[name] for name in names]):
            others = np.empty_like(rows)
            for i in range(len(names)):  # summed anew, not "total minus own", which would cancel for a huge outlier
                others[i] = np.delete(rows, i, axis=0).sum(axis=0)
            own += np.einsum("ij,ij->i", rows, rows)
            rest += np.einsum("ij,ij->i", others, others)
            dot += np.einsum("ij,ij->i", rows, others)
    return {name: _cosine(float(dot[i]), float(own[i]), float(rest[i])) for i, name in enumerate(names)}


def _cosine(dot: float, square_a: float, square_b: float) -> float | None:
    length = math.sqrt(square_a) * math.sqrt(square_b) if square_a > 0 and square_b > 0 else 0.0
    if not (math.isfinite(dot) and math.isfinite(length)) or length == 0.0:
        return None
    return max(-1.0, min(1.0, dot / length))


def _dot(a: Gradient, b: Gradient) -> float:
    total = 0.0
    with np.errstate(all="ignore"):
        for rows in _chunks([a, b]):
            total += float(rows[0] @ rows[1])
    return total


def _chunks(gradients: Sequence[Gradient]) -> Iterator[NDArray[np.float64]]:
    """Yield `[gradient, element]` blocks in float64, of at most `_CHUNK` elements a gradient."""
    shapes = [[array.shape for array in gradient] for gradient in gradients]
    if any(other != shapes[0] for other in shapes):
        raise ValueError(f"gradients of one stage must have the same arrays, but their shapes are {shapes}")
    for arrays in zip(*gradients, strict=True):
        flat = [np.ravel(array) for array in arrays]
        for start in range(0, flat[0].size, _CHUNK):
            yield np.stack([row[start : start + _CHUNK].astype(np.float64) for row in flat])
