"""What the workers of one process share gives each of them what it would have come to alone, and nobody another's memory."""

import pytest
import torch

from pluralis_lab.engines.virtual.frame import Frame
from pluralis_lab.engines.virtual.shared_gradients import SharedGradients
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.payload import pack
from pluralis_lab.learning.round_gradients import RoundGradients
from pluralis_lab.worker.messages import Gradient

SIZE, NUM_MICRO_BATCHES = 5000, 4


def parts_of(seed: int) -> tuple[tasks.Part, ...]:
    """Return four replicas' gradients of a micro-batch each."""
    drawn = torch.Generator().manual_seed(seed)
    arrays = [torch.randn(SIZE, generator=drawn) for _ in range(NUM_MICRO_BATCHES)]
    return tuple(tasks.Part(f"worker-{n}", (n,), pack([("g", array)])) for n, array in enumerate(arrays))


def poisoned(parts: tuple[tasks.Part, ...]) -> tuple[tasks.Part, ...]:
    return (*parts[:-1], tasks.Part("worker-3", (3,), pack([("g", torch.full((SIZE,), torch.nan))])))


@pytest.mark.parametrize("payload", ["same", "bfloat16", "int8"])
def test_whoever_asks_gets_the_bits_that_a_worker_alone_gets(payload):
    format = FlatFormat(payload, torch.float32)
    alone, shared, parts = RoundGradients(format, SIZE), SharedGradients(format, SIZE), parts_of(seed=0)
    parts = tuple(tasks.Part(each.worker, each.indices, format.write(each.gradient.tensors()["g"])) for each in parts)
    own = alone.inspect(7, parts), alone.mean(7, parts, num_micro_batches=NUM_MICRO_BATCHES)
    for _ in range(3):
        assert shared.inspect(7, parts) == own[0]
        assert torch.equal(shared.mean(7, parts, num_micro_batches=NUM_MICRO_BATCHES), own[1])
    others = parts_of(seed=1) if payload == "same" else (*parts[1:], tasks.Part("worker-0", (0,), parts[1].gradient))
    assert not torch.equal(shared.mean(7, others, num_micro_batches=NUM_MICRO_BATCHES), own[1])
    assert shared.inspect(7, others) != own[0]


def test_an_optimizer_that_writes_into_its_gradient_changes_nobody_elses():
    shared, parts = SharedGradients(FlatFormat("same", torch.float32), SIZE), parts_of(seed=0)
    first = shared.mean(0, parts, num_micro_batches=NUM_MICRO_BATCHES)
    expected = first.clone()
    first.zero_()
    assert torch.equal(shared.mean(0, parts, num_micro_batches=NUM_MICRO_BATCHES), expected)


def test_a_gradient_that_is_not_finite_is_refused_to_each_that_asks():
    shared, parts = SharedGradients(FlatFormat("same", torch.float32), SIZE), poisoned(parts_of(seed=0))
    for _ in range(2):
        assert "worker-3 sent in round 2" in shared.inspect(2, parts).unusable["worker-3"]
        with pytest.raises(WireError, match=r"NaN, infinity or a number beyond 1e\+12 in what worker-3 sent in round 2"):
            shared.mean(2, parts, num_micro_batches=NUM_MICRO_BATCHES)


def test_a_round_is_kept_until_the_next_is_over_and_no_longer():
    shared, parts = SharedGradients(FlatFormat("same", torch.float32), SIZE), parts_of(seed=0)
    shared.inspect(3, parts)
    shared.mean(3, parts, num_micro_batches=NUM_MICRO_BATCHES)
    shared.forget_before(4)
    assert len(shared._held) == NUM_MICRO_BATCHES
    assert len(shared._inspected) == len(shared._means) == 1
    shared.forget_before(5)
    assert [len(kept) for kept in (shared._held, shared._usable, shared._inspected, shared._means)] == [0, 0, 0, 0]


def test_all_whom_a_message_reaches_get_what_its_bytes_say():
    item = {"indices": [1], "tokens": 9, "digest": "d", "signature": "0x"}
    message = Gradient(3, 1, item, pack([("g", torch.arange(4.0))]))
    frame = Frame(message, is_modelled=False)
    item["tokens"] = 10  # what was sent is sent
    assert frame.received.item["tokens"] == 9
    assert frame.received is not message
    assert frame.received is frame.received
    assert Frame(message, is_modelled=True).received is message
