"""Which numbers of a peer can be computed with: finite ones, and none so large that what is made of them could overflow.

What is refused is refused number by number, never for what it adds up to. So all replicas come to the same verdict on the same
bytes, whatever else they hold; each verdict has one author; and a sum of usable arrays is finite, so that who says of usable
pieces that they add up to infinity lies.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pluralis_lab.errors import RunError, WireError

MOST_TERMS = 2**16
"""More arrays than are ever added up for one step, momentum over all steps included (a factor of ten at 0.9)."""


def largest_usable(dtype: torch.dtype) -> float:
    """Return the largest magnitude of a number of `dtype` that `MOST_TERMS` of can be added up: 5e33 in float32."""
    return torch.finfo(dtype).max / MOST_TERMS


def largest_sum(dtype: torch.dtype) -> float:
    """Return the largest magnitude of a step's gradient whose square an optimizer can keep in a usable state: 7e16 in float32."""
    return math.sqrt(largest_usable(dtype))


def largest_gradient(dtype: torch.dtype) -> float:
    """Return the largest magnitude of a number of one replica's gradient or displacement: 1e12 in float32.

    `MOST_TERMS` of them add up to no more than `largest_sum`. So whoever makes a step of usable gradients has a state that each
    joiner can use, and nobody takes an honest replica for a liar because of what a liar sent.
    """
    return largest_sum(dtype) / MOST_TERMS


def check_usable(
    array: Tensor, whose: str, *, largest: Callable[[torch.dtype], float] = largest_usable, share: float = 1.0
) -> None:
    """Raise WireError that says `whose` numbers they are, where some of `array` cannot be computed with.

    share : of the magnitude `largest`, above which a number counts as too large
    """
    if not array.numel():
        return
    bound = share * largest(array.dtype)
    lowest, highest = (float(end) for end in array.aminmax())
    if not (-bound <= lowest and highest <= bound):  # NaN fails every comparison
        raise WireError(f"NaN, infinity or a number beyond {bound:.0e} in {whose}; lower the learning rate or find the fault")


def check_own(array: Tensor, what: str, *, largest: Callable[[torch.dtype], float] = largest_usable) -> None:
    """Raise RunError where `what` this worker is about to send cannot be computed with: the model has diverged.

    With half of the bound, so that what is rounded on the way is not refused by others.
    """
    try:
        check_usable(array, f"this worker's {what}", largest=largest, share=0.5)
    except WireError as error:
        raise RunError(str(error)) from None


def unusable(arrays: Mapping[str, Tensor], what: str) -> dict[str, str]:
    """Return by worker why its gradient or displacement in `arrays` cannot be computed with, of those of which that is so.

    what : what each worker's array is
    """
    found = {}
    for worker, array in arrays.items():
        try:
            check_usable(array, what, largest=largest_gradient)
        except WireError as error:
            found[worker] = f"sent {error}"
    return found
