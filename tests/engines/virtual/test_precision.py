"""Products in bfloat16 under the whole protocol: replicas agree to the bit, and what is computed again comes out as before."""

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Kill
from tests.engines.conftest import run_virtual, tiny_spec


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_replicas_agree_and_learn(text: Corpus, schedule: str) -> None:
    spec = tiny_spec(text, replicas=2, dtype="float32", precision="bfloat16", schedule=schedule, steps=20)
    seen = run_virtual(spec, text)
    assert len(seen.losses) == spec.steps
    assert seen.losses[19] < 0.95 * seen.losses[0]
    assert all(len(digests) == 1 for digests in seen.digests().values())


def test_what_a_killed_worker_had_computed_is_computed_again_alike(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, dtype="float32", precision="bfloat16")
    whole = run_virtual(spec, text)
    for worker in (1, 3, 5):
        seen = run_virtual(spec, text, kills=(Kill(f"worker-{worker}", whole.swarm.num_events // 2, 0.02),))
        # Each micro-batch's numbers are the same; who sums them, and so the order, is not.
        assert seen.losses == pytest.approx(whole.losses, abs=1e-4)
        assert all(len(digests) == 1 for digests in seen.digests().values())
