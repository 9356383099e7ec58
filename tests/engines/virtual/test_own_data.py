"""Heads with corpora of their own: all stages train on the same micro-batches, whoever dies, and others count what is brought."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pluralis_lab.corpus import Corpus, CorpusInfo, MicroBatch, open_corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.errors import RunSpecError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.drawing import falls_to_own_data
from pluralis_lab.learning.reference import train
from pluralis_lab.links import Links
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import Send
from pluralis_lab.worker.messages import Activation
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec

DIGITS = set(b"0123456789 ")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A text that is easily told from the common one: digits."""
    folder = tmp_path_factory.mktemp("own")
    rng = random.Random(1)
    (folder / "own.txt").write_text(" ".join(str(rng.randrange(1000)) for _ in range(40_000)))
    return open_corpus(f"path:{folder / 'own.txt'}", context=16, home=folder)


@dataclass
class Trained:
    """The ids that the tail was given for each micro-batch, and the corpus that a single process would draw them from."""

    common: Corpus
    ids: dict[tuple[int, int], list[object]] = field(default_factory=dict)

    def info(self) -> CorpusInfo:
        return self.common.info()

    def micro_batch(self, seed: int, round: int, index: int, size: int) -> MicroBatch:
        return MicroBatch(self.ids[round, index][0].numpy(), None)  # type: ignore[attr-defined]

    def validation_batch(self, index: int, size: int) -> MicroBatch:
        return self.common.validation_batch(index, size)

    def is_own(self, round_: int, index: int) -> bool:
        return set(self.ids[round_, index][0].flatten().tolist()) <= DIGITS  # type: ignore[attr-defined]


Train = Callable[..., tuple[Observed, Trained]]


@pytest.fixture
def trained(text: Corpus, digits: Corpus, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Return a function that runs a spec with `digits` at worker-0."""
    original = StageCompute.run

    def run(spec: RunSpec, **options: object) -> tuple[Observed, Trained]:
        given = Trained(text)

        def noted(self: StageCompute, task: tasks.Task) -> tasks.Result:
            if self.module.is_last and isinstance(task, tasks.Forward):
                assert task.inputs is not None
                given.ids.setdefault((task.round, task.index), []).append(task.inputs.tensors()["ids"])
            return original(self, task)

        monkeypatch.setattr(StageCompute, "run", noted)
        return run_virtual(spec, text, own={"worker-0": digits}, **options), given  # type: ignore[arg-type]

    return run


def assert_one_model(seen: Observed, given: Trained, spec: RunSpec, what: object = "") -> None:
    """All stages made their steps from the micro-batches that the tail saw."""
    assert len(seen.losses) == spec.steps, f"{what}: the run stalled"
    for step in train(spec, given):
        assert seen.losses[step.round] == pytest.approx(step.loss, abs=1e-10, rel=0), f"{what}: round {step.round}"
        for stage, expected in enumerate(step.gradients):
            difference = (seen.gradients[stage, step.round] - expected).abs().max().item()
            assert difference < 1e-10, f"{what}: stage {stage}, round {step.round}: gradients differ by {difference:.1e}"
    assert all(len(digests) == 1 for digests in seen.digests().values()), f"{what}: replicas diverged"


def own_tokens(seen: Observed) -> int:
    """Return what the second stage counted of worker-0's own corpus."""
    return sum(body["links"].get("worker-0", {}).get("own_tokens", 0) for _, body in seen.of_kind("work"))


def test_a_head_draws_its_share_and_the_next_stage_counts_it(text: Corpus, trained: Train) -> None:
    spec = tiny_spec(text, replicas=2, steps=12, own_data=0.5)
    seen, given = trained(spec)
    assert_one_model(seen, given, spec)
    own = sum(given.is_own(*key) for key in given.ids)
    assert own_tokens(seen) == own * spec.tokens_per_micro_batch
    # Half of what worker-0 is dealt, which is half of all.
    assert 0.12 < own / len(given.ids) < 0.4
    again, _ = trained(spec)
    assert again.losses == seen.losses


def test_all_or_nothing(text: Corpus, trained: Train) -> None:
    everything = tiny_spec(text, replicas=2, steps=4, own_data=1.0)
    seen, given = trained(everything)
    assert_one_model(seen, given, everything)
    assert sum(given.is_own(*key) for key in given.ids) == len(given.ids) / 2
    plain = tiny_spec(text, replicas=2, steps=4)
    seen, given = trained(plain)
    assert not own_tokens(seen)
    assert seen.losses == run_virtual(plain, text).losses


def drawn_kill(rng: random.Random, spec: RunSpec, events: int) -> tuple[Kill, ...]:
    """Return deaths of worker-0, which alone has the data, and perhaps of another just after it."""
    moment = rng.randrange(1, events)
    kills = [Kill("worker-0", moment, rng.choice([None, 0.001, 0.02, 0.5]), rng.random() < 0.7)]
    other = rng.randrange(2, spec.num_workers)
    if rng.random() < 0.6:
        kills.append(Kill(f"worker-{other}", moment + rng.randrange(60), 0.02, rng.random() < 0.7))
    return tuple(kills)


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("rate", ["1gbit", "1mbit"])
def test_whoever_takes_over_makes_the_same_micro_batches(text: Corpus, trained: Train, rate: str) -> None:
    spec = tiny_spec(text, replicas=2, steps=4, own_data=0.7, eval_every=0, eval_batches=1)
    links = Links(rate, latency_ms=5)
    whole, _ = trained(spec, links=links)
    assert whole.swarm is not None
    rng = random.Random(drawn_seed())
    for _ in range(12):
        kills = drawn_kill(rng, spec, whole.swarm.num_events)
        seen, given = trained(spec, links=links, kills=kills)
        assert_one_model(seen, given, spec, kills)


@pytest.mark.deep
@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_many_drawn_deaths(text: Corpus, trained: Train, schedule: str) -> None:
    spec = tiny_spec(text, replicas=3, steps=5, own_data=0.7, eval_every=0, eval_batches=1, schedule=schedule)
    whole, _ = trained(spec)
    assert whole.swarm is not None
    rng = random.Random(drawn_seed())
    for _ in range(300):
        kills = drawn_kill(rng, spec, whole.swarm.num_events)
        seen, given = trained(spec, kills=kills)
        if schedule == "sync":
            assert_one_model(seen, given, spec, kills)
        else:
            assert len(seen.losses) == spec.steps, f"{kills}: the run stalled"


@pytest.mark.parametrize(("changes", "said"), [({"stages": 1}, "stages=2 or more"), ({"own_data": 1.5}, "own_data=1.5")])
def test_what_cannot_be_is_refused(text: Corpus, changes: dict[str, object], said: str) -> None:
    with pytest.raises(RunSpecError, match=said):
        tiny_spec(text, **{"own_data": 0.5, "boundary": None, **changes})


def test_older_specs_keep_their_hash(text: Corpus) -> None:
    assert b"own_data" not in tiny_spec(text).to_json()
    spec = tiny_spec(text, own_data=0.25)
    assert RunSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_head_that_claims_more_than_falls_to_a_text_of_its_own_is_expelled(text: Corpus, digits: Corpus, share: float) -> None:
    spec = tiny_spec(text, replicas=2, steps=4, micro_batches=4, batch_size=8, own_data=share, eval_every=0)
    claimed: list[tuple[int, int]] = []

    def lie(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send = swarm.network.send

            def speak(name: str, seat: Any, effect: Send) -> None:
                message = effect.message
                if name == "worker-0" and isinstance(message, Activation):
                    claimed.append((message.round, message.index))
                    effect = replace(effect, message=replace(message, own=True))
                send(name, seat, effect)

            swarm.network.send = speak  # type: ignore[method-assign]

    seen = run_virtual(spec, text, own={"worker-0": digits} if share else {}, has_liars=True, on_event=lie)
    assert sorted(seen.losses) == list(range(4))
    reasons = [body["reason"] for worker, body in seen.of_kind("state") if worker == "worker-0" and body["state"] == "dead"]
    first = next(where for where in claimed if not falls_to_own_data(spec, *where))
    assert len(reasons) == 1
    assert f"says that micro-batch {first[1]} of round {first[0]} is of a head's own data" in reasons[0]
