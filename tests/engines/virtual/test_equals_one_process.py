"""The pipeline computes what one process computes: losses and gradients of every round."""

import hashlib
from typing import Literal

import pytest
import torch

from pluralis_lab.corpus import Corpus
from pluralis_lab.learning.reference import train
from pluralis_lab.links import Links
from pluralis_lab.parts import MLP, SGD, Dense, Int8, Muon, TopK
from pluralis_lab.worker import worker_name
from tests.engines.conftest import BOUNDARIES, TOLERANCE, Observed, run_virtual, tiny_spec

STEPS = 20


def assert_equals_reference(seen: Observed, spec, corpus: Corpus, tolerance: float) -> None:
    for step in train(spec, corpus):
        assert seen.losses[step.round] == pytest.approx(step.loss, abs=tolerance, rel=0)
        for stage, expected in enumerate(step.gradients):
            difference = (seen.gradients[stage, step.round] - expected).abs().max().item()
            assert difference <= tolerance, f"stage {stage}, round {step.round}: gradients differ by {difference:.2e}"
    assert len(seen.losses) == spec.steps


@pytest.mark.parametrize("boundary", ["dense", "subspace"])
def test_three_stages_give_the_losses_and_gradients_of_one_process(text: Corpus, boundary: str) -> None:
    spec = tiny_spec(text, boundary=BOUNDARIES[boundary], replicas=1, steps=STEPS)
    assert_equals_reference(run_virtual(spec, text), spec, text, TOLERANCE[boundary])


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("boundary", ["dense", "subspace"])
def test_two_replicas_equal_one_process_with_twice_the_batch(text: Corpus, boundary: str) -> None:
    spec = tiny_spec(text, boundary=BOUNDARIES[boundary], replicas=2, steps=STEPS)
    # The reference runs all `replicas * micro_batches` micro-batches of a round: one process, twice the batch.
    assert spec.num_micro_batches == 2 * spec.micro_batches
    assert_equals_reference(run_virtual(spec, text), spec, text, 1e-10)


def test_one_stage_is_plain_data_parallelism(text: Corpus) -> None:
    spec = tiny_spec(text, boundary=Dense(), stages=1, replicas=3, steps=6)
    assert_equals_reference(run_virtual(spec, text), spec, text, 1e-12)


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), Muon()], ids=lambda part: part.kind)
def test_other_optimizers_equal_one_process_too(text: Corpus, optimizer: SGD | Muon) -> None:
    spec = tiny_spec(text, boundary=Dense(), replicas=2, steps=STEPS, optimizer=optimizer)
    seen = run_virtual(spec, text)
    # Muon's iterations are in bfloat16: a last bit of a gradient can be a step there.
    assert_equals_reference(seen, spec, text, 1e-10 if isinstance(optimizer, SGD) else 2e-2)
    assert seen.losses[STEPS - 1] < 0.9 * seen.losses[0]


def test_an_mlp_on_digits_equals_one_process(tmp_path) -> None:
    from pluralis_lab.corpus import open_corpus

    digits = open_corpus("digits", context=None, home=tmp_path)
    spec = tiny_spec(digits, model=MLP([64, 32, 32, 10]), boundary=Dense(), replicas=2, steps=10, batch_size=16)
    assert_equals_reference(run_virtual(spec, digits), spec, digits, 1e-12)


def test_the_links_change_the_clock_and_not_the_losses(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2)
    fast, slow = run_virtual(spec, text, links=Links("1gbit", 1)), run_virtual(spec, text, links=Links("1mbit", 50))
    assert fast.losses == slow.losses
    assert fast.digests() == slow.digests()
    assert slow.swarm.now > 5 * fast.swarm.now


def test_every_byte_that_was_sent_is_told_also_behind_the_last_round(text: Corpus) -> None:
    seen = run_virtual(tiny_spec(text, replicas=2), text)
    told = [body for kind in ("work", "links") for _, body in seen.of_kind(kind)]
    sent = sum(body["bytes_out"] for body in told)
    assert sent == sum(body["bytes_in"] for body in told) > 0
    assert sent == sum(
        size for body in told for link in body["links"].values() for kind, size in link.items() if kind.endswith("_bytes")
    )
    assert seen.of_kind("links")


def test_a_simulation_repeats_to_the_bit(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2)
    first, second = run_virtual(spec, text), run_virtual(spec, text)
    assert first.reports == second.reports
    assert first.statements == second.statements


def test_another_seed_is_another_run(text: Corpus) -> None:
    first, second = run_virtual(tiny_spec(text), text), run_virtual(tiny_spec(text, seed=1), text)
    assert first.losses != second.losses


def test_replicas_hold_the_same_weights_and_validation_is_theirs(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2)
    seen = run_virtual(spec, text)
    assert all(len(digests) == 1 for digests in seen.digests().values())
    assert sorted(seen.validations) == [2, 4, 5]
    stages = [seen.swarm.seats[f"worker-{2 * stage}"].compute.module for stage in range(3)]
    losses = []
    for index in range(spec.eval_batches):
        ids = torch.as_tensor(text.validation_batch(index, spec.micro_batch_size).inputs).to(torch.int64)
        x = ids[:, :-1]
        for stage in stages:
            x = stage(x)
        losses.append(stages[-1].loss_sum(x, ids[:, 1:]).item())
    tokens = spec.eval_batches * spec.tokens_per_micro_batch
    assert seen.validations[5] == pytest.approx(sum(losses) / tokens, abs=1e-12)


def test_resuming_from_a_checkpoint_gives_the_losses_of_an_uninterrupted_run(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=8)
    whole = run_virtual(spec, text)
    states = {worker: state for (worker, version), state in whole.stored.items() if version == 4}
    rest = run_virtual(spec, text, start=(4, states))
    assert {number: whole.losses[number] for number in range(4, 8)} == rest.losses
    assert whole.digests() == rest.digests()


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_replicas_store_the_same_bytes_so_a_checkpoint_is_there_twice(text: Corpus, schedule: Literal["sync", "async"]) -> None:
    spec = tiny_spec(text, replicas=2, steps=8, schedule=schedule)
    stored = run_virtual(spec, text).stored
    assert {version for _, version in stored} == {4, 8}
    for (worker, version), (state, digest) in stored.items():
        assert hashlib.sha256(state).hexdigest() == digest
        mate = worker_name(int(worker.removeprefix("worker-")) ^ 1)
        assert stored[mate, version] == (state, digest), f"{worker} and {mate} hold different weights of round {version}"
    assert len(stored) == 2 * spec.num_workers
    assert len({digest for _, digest in stored.values()}) == 2 * spec.stages


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("boundary", [Int8(), TopK(6)], ids=lambda part: part.kind)
def test_through_a_lossy_boundary_replicas_stay_in_step_and_learn(text: Corpus, boundary: Int8 | TopK) -> None:
    spec = tiny_spec(text, boundary=boundary, replicas=2, steps=STEPS)
    seen = run_virtual(spec, text)
    assert seen.losses[STEPS - 1] < 0.9 * seen.losses[0]
    assert seen.losses == run_virtual(spec, text, links=Links("1mbit", 50)).losses
    reference = list(train(spec, text))
    assert seen.losses[0] == pytest.approx(reference[0].loss, rel=0.02)
    assert all(len(different) == 1 for different in seen.digests().values())
