"""Gradient norm and agreement: how long each replica's gradient is, and whether it points where the others' point.

Source: algorithms.md, "Influence from linear sketches" (the other replicas' mean, without one's own term); this is the
exact first form, on the gradients that every replica under `gather` holds anyway. It is shown and gates no payment.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18  # elements widened to float64 at a time, so that a gradient of gigabytes needs no second copy

_CANCELLED = 1e-12
"""Part of the terms' size below which the square of a sum is rounding: a thousand times float64's own."""

Gradient = Sequence[NDArray[np.floating]]
"""One replica's gradient: its parameters' arrays, in the same order and of the same shapes for all replicas."""


def gradient_norm(gradient: Gradient) -> float | None:
    """Return the Euclidean norm over all arrays of `gradient`, summed in float64.

    None when it is not finite: a receipt is canonical JSON, which has no NaN, and "undefined" is what it then is.
    """
    return _norm(float(_products([gradient])[0, 0]))


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
    return measure(gradients)[1]


def measure(gradients: Mapping[str, Gradient]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Return the norms and the agreements of a stage's replicas, by worker, in one pass over the data.

    Raises ValueError when they do not have the same arrays.
    """
    products = _products(list(gradients.values()))
    norms, cosines = {}, {}
    for i, name in enumerate(gradients):
        others = np.arange(len(products)) != i
        with np.errstate(all="ignore"):  # NaN and infinity are a worker's fault and become None
            own, rest = float(products[i, i]), products[np.ix_(others, others)]
            # Where the others cancel, what is left of their sum's square is rounding of the terms.
            square = float(rest.sum())
            is_known = square > _CANCELLED * float(np.abs(rest).sum())
            norms[name] = _norm(own)
            cosines[name] = _cosine(float(products[i, others].sum()), own, square) if is_known else None
    return norms, cosines


def measure_totals(
    workers: Sequence[str], squares: Sequence[float], products: Sequence[float], total: float
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Return what `measure` does where nobody holds all gradients: from sums over their parts, as BTARD (arXiv 2106.11257) has.

    Parameters
    ----------
    workers : the stage's replicas
    squares : ‖g_i‖² of each
    products : ⟨g_i, Σ g⟩ of each, with the sum over all replicas, its own gradient among them
    total : ‖Σ g‖²
    """
    norms, cosines = {}, {}
    for name, own, product in zip(workers, squares, products, strict=True):
        square = total - 2 * product + own
        is_known = square > _CANCELLED * (abs(total) + 2 * abs(product) + own)
        norms[name] = _norm(own)
        cosines[name] = _cosine(product - own, own, square) if is_known else None
    return norms, cosines


def _norm(square: float) -> float | None:
    """Return the root; None also of a square below zero, which only one who makes it up can say (`measure_totals`)."""
    return math.sqrt(square) if math.isfinite(square) and square >= 0 else None


def _cosine(dot: float, square_a: float, square_b: float) -> float | None:
    length = math.sqrt(square_a) * math.sqrt(square_b) if square_a > 0 and square_b > 0 else 0.0
    if not (math.isfinite(dot) and math.isfinite(length)) or length == 0.0:
        return None
    return max(-1.0, min(1.0, dot / length))


def _products(gradients: Sequence[Gradient]) -> NDArray[np.float64]:
    """Return the inner products of all pairs `[gradient, gradient]`, summed in float64."""
    products = np.zeros((len(gradients), len(gradients)))
    with np.errstate(all="ignore"):
        for rows in _chunks(gradients):
            products += rows @ rows.T
    return products


def _chunks(gradients: Sequence[Gradient]) -> Iterator[NDArray[np.float64]]:
    """Yield `[gradient, element]` blocks in float64, of at most `_CHUNK` elements a gradient."""
    shapes = [[array.shape for array in gradient] for gradient in gradients]
    if any(other != shapes[0] for other in shapes):
        raise ValueError(f"gradients of one stage must have the same arrays, but their shapes are {shapes}")
    for arrays in zip(*gradients, strict=True):
        flat = [np.ravel(array) for array in arrays]
        for start in range(0, flat[0].size, _CHUNK):
            yield np.stack([row[start : start + _CHUNK].astype(np.float64) for row in flat])
