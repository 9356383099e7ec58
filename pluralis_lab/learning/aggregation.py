"""How the replicas' gradients become one: aggregators over flat arrays."""

from collections.abc import Mapping, Sequence

from torch import Tensor


def weighted_mean(gradients: Mapping[str, Tensor], counts: Mapping[str, int], *, total: int) -> Tensor:
    """Return the gradient of the round's mean loss from the replicas' sums.

    Each replica sends the *sum* over the micro-batches it counted, already divided by the round's number of targets, so
    weighting by counted samples is a plain sum. It is taken in the order of the workers' names, see `added_up`.

    Parameters
    ----------
    gradients : flat arrays `[weights]` by worker
    counts : micro-batches that each worker counted; they must add up to `total`

    Raises ValueError when micro-batches are missing or counted twice.
    """
    if sum(counts.values()) != total:
        raise ValueError(f"the replicas counted {dict(counts)}, which is not {total} micro-batches in all")
    return added_up([gradients[worker] for worker in sorted(gradients) if counts[worker]])


def added_up(arrays: Sequence[Tensor]) -> Tensor:
    """Return the sum of `arrays` of one shape, taken one after the other.

    So every replica gets the same bits, whatever its processor: ``torch.sum`` over many adds up in another order on another one.
    """
    total = arrays[0].clone()
    for array in arrays[1:]:
        total += array
    return total
