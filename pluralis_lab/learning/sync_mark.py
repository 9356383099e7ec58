"""Where a replica that trains locally stands, as tensors of its checkpoint, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks


def write_mark(mark: tasks.SyncMark) -> dict[str, Tensor]:
    """Return `mark` as whole-number tensors for a checkpoint."""
    begun = -1 if mark.begun is None else mark.begun
    counted = torch.tensor(mark.counted, dtype=torch.int64).reshape(-1, 2)
    return {"sync/mark": torch.tensor([begun, mark.apply_at, mark.lag], dtype=torch.int64), "sync/counted": counted}


def read_mark(tensors: Mapping[str, Tensor]) -> tasks.SyncMark:
    """Read what `write_mark` wrote. Raises WireError for anything else."""
    mark, counted = tensors.get("sync/mark"), tensors.get("sync/counted")
    if mark is None or counted is None or mark.shape != (3,) or counted.dim() != 2 or counted.shape[1] != 2:
        raise WireError("a state without 'sync/mark' and 'sync/counted', which a rule that trains locally needs")
    begun, apply_at, lag = (int(number) for number in mark.tolist())
    pairs = tuple((int(round_), int(index)) for round_, index in counted.tolist())
    return tasks.SyncMark(pairs, None if begun < 0 else begun, apply_at, lag)
