"""Where a replica that trains locally stands, as tensors of its checkpoint, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.local_sync import is_exchanged
from pluralis_lab.spec import RunSpec


def write_mark(mark: tasks.SyncMark) -> dict[str, Tensor]:
    """Return `mark` as whole-number tensors for a checkpoint."""
    begun = -1 if mark.begun is None else mark.begun
    counted = torch.tensor(mark.counted, dtype=torch.int64).reshape(-1, 2)
    return {"sync/mark": torch.tensor([begun, mark.apply_at, mark.lag], dtype=torch.int64), "sync/counted": counted}


def read_mark(tensors: Mapping[str, Tensor], spec: RunSpec, version: int) -> tasks.SyncMark:
    """Read what `write_mark` wrote after `version` rounds.

    Raises WireError for anything else, and for a place where no replica can stand by then.
    """
    mark, counted = tensors.get("sync/mark"), tensors.get("sync/counted")
    if mark is None or counted is None or mark.shape != (3,) or counted.dim() != 2 or counted.shape[1] != 2:
        raise WireError("a state without 'sync/mark' and 'sync/counted', which a rule that trains locally needs")
    if mark.dtype != torch.int64 or counted.dtype != torch.int64:
        raise WireError(f"'sync/mark' is {mark.dtype} and 'sync/counted' {counted.dtype}, expected whole numbers, torch.int64")
    begun, apply_at, lag = mark.tolist()
    _check_place(spec, version, begun, apply_at, lag)
    if begun >= 0 and "sync/snapshot" not in tensors:
        raise WireError(f"a state without 'sync/snapshot', though an exchange began after round {begun}; the peer is at fault")
    return tasks.SyncMark(_counted(counted, spec, version), None if begun < 0 else begun, apply_at, lag)


def _check_place(spec: RunSpec, version: int, begun: int, apply_at: int, lag: int) -> None:
    """Raise WireError where no exchange can be under way like that after `version` rounds."""
    every = spec.sync_every or 1
    # Whoever keeps a state has merged all that was due by then.
    is_under_way = 0 <= begun < version and is_exchanged(spec, begun) and version < apply_at <= min(begun + 1 + every, spec.steps)
    if not 1 <= lag <= every or not (is_under_way or (begun, apply_at) == (-1, 0)):
        raise WireError(
            f"'sync/mark' says begun={begun}, apply_at={apply_at}, lag={lag}, where no replica can stand after {version} of "
            f"{spec.steps} rounds that exchanges every {every}; the peer is at fault"
        )


def _counted(counted: Tensor, spec: RunSpec, version: int) -> tuple[tuple[int, int], ...]:
    """Return the pairs (round, index) of `counted` `[pairs, 2]`. Raises WireError for some that nobody can have counted yet."""
    ends = torch.tensor([version, spec.num_micro_batches])
    if len(counted) > version * spec.num_micro_batches or bool(((counted < 0) | (counted >= ends)).any()):
        raise WireError(
            f"'sync/counted' has {len(counted)} pairs, of which not all can be after {version} rounds of "
            f"{spec.num_micro_batches} micro-batches each; the peer is at fault"
        )
    return tuple((round_, index) for round_, index in counted.tolist())
