"""How large a message of a run can be, and how much can wait for one worker: what is beyond is refused before it is read."""

from collections.abc import Sequence

from pluralis_lab.learning.state_chunks import chunk_bytes, largest_state_bytes
from pluralis_lab.models.cost import widest_entry
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker.download import AT_ONCE

NUMBER_BYTES = 8
"""Of the widest type that travels."""


def largest_message_bytes(spec: RunSpec, stage_parameters: Sequence[int]) -> int:
    """Return the largest message that can be meant: a stage's gradient with what goes along, or a micro-batch at full width.

    States travel in chunks.
    """
    return (1 << 20) + 2 * NUMBER_BYTES * max(stage_parameters) + _micro_batch_bytes(spec)


def most_waiting_bytes(spec: RunSpec, stage_parameters: Sequence[int]) -> int:
    """Return what can wait for one peer of a run in order, and more.

    The activations or gradients of all micro-batches under way, if one peer serves them all; a joiner's chunks, and as much
    again of weight gradients, their chunks and sums, after a death also others'.
    """
    state = largest_state_bytes(max(stage_parameters), is_local=spec.sync_every is not None)
    under_way = (spec.window + 1) * spec.num_micro_batches
    gradients = 16 * largest_message_bytes(spec, stage_parameters)
    return AT_ONCE * chunk_bytes(state) + gradients + 2 * under_way * _micro_batch_bytes(spec)


def _micro_batch_bytes(spec: RunSpec) -> int:
    sample = widest_entry(spec) + (spec.context or 0) + 1
    return 2 * NUMBER_BYTES * spec.micro_batch_size * sample
