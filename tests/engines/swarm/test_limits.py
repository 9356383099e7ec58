"""What a worker refuses before it is read is larger than all that is meant, and not by much."""

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.swarm.limits import largest_message_bytes, most_waiting_bytes
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.state_chunks import chunk_bytes
from pluralis_lab.models.cost import stage_parameters
from pluralis_lab.parts import GPT, Dense, FullSync
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker.download import AT_ONCE
from pluralis_lab.worker.encoding import encode
from pluralis_lab.worker.messages import Activation, Contribution, Gradient
from tests.engines.conftest import tiny_spec

ITEM = {"kind": "forward", "run": "ab" * 32, "round": 0, "stage": 0, "worker": "worker-0", "indices": [0], "tokens": 512}


def sizes(spec: RunSpec, text: Corpus) -> dict[str, int]:
    """Return the bytes of the largest messages of a micro-batch that really goes there and back through two stages."""
    head, tail = StageCompute(spec, 0, text), StageCompute(spec, 1, None, vocab=256)
    there = head.run(tasks.Forward(0, 0, None))
    ends = tail.run(tasks.Forward(0, 0, there.output))
    head.run(tasks.Backward(0, 0, ends.gradient))
    sums = [stage.run(tasks.Collect(0, (0,))).gradient for stage in (head, tail)]
    return {
        "activation": len(encode(Activation(0, 0, ITEM, there.output))),
        "gradient": len(encode(Gradient(0, 0, ITEM, ends.gradient))),
        "contribution": max(len(encode(Contribution(0, "worker-0", 1.0, 40, ITEM, total))) for total in sums),
    }


@pytest.mark.parametrize(("width", "size"), [(16, 256), (160, 4)], ids=["large micro-batches", "large weights"])
@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_the_largest_messages_and_all_that_waits_in_order_fit_and_ten_times_as_much_does_not(
    text: Corpus, width: int, size: int, schedule: str
) -> None:
    model = GPT(n_layer=2, n_head=2, d_model=width, context=16)
    more = {"model": model, "stages": 2, "boundary": Dense(), "sync": FullSync(payload="same"), "schedule": schedule}
    spec = tiny_spec(text, replicas=2, batch_size=4 * size, micro_batches=2, **more)
    parameters = [stage_parameters(spec, stage, 256) for stage in range(2)]
    found = sizes(spec, text)
    limit, waiting = largest_message_bytes(spec, parameters), most_waiting_bytes(spec, parameters)
    assert max(found.values()) < limit < (1 << 20) + 10 * max(found.values())
    under_way = (spec.window + 1) * spec.num_micro_batches
    state = AT_ONCE * chunk_bytes(3 * 8 * max(parameters))  # weights and two moments
    in_order = under_way * max(found["activation"], found["gradient"]) + 2 * found["contribution"] + state
    assert in_order < waiting < 10 * in_order + (64 << 20)
