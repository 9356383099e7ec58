"""A subspace that turns while the run goes on: exact before and after, one turn for all, through deaths, joiners, resumes."""

from typing import Any

import pytest
import torch

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Attachment, Kill
from pluralis_lab.learning.turns import basis_version, gathers, switches
from pluralis_lab.parts import SGD, AdamW, Muon, NAdam, Subspace
from pluralis_lab.spec import RunSpec
from tests.engines.conftest import Observed, run_virtual, tiny_spec
from tests.engines.virtual.test_equals_one_process import assert_equals_reference


def turning_spec(corpus: Corpus, *, every: int = 4, step: float = 0.5, **changes: Any) -> RunSpec:
    boundary = Subspace(4, "same", refresh_every=every, refresh_step=step)
    return tiny_spec(corpus, **{"boundary": boundary, "steps": 14, "checkpoint_every": 5, **changes})


def bases(seen: Observed) -> list[torch.Tensor]:
    assert seen.swarm is not None
    return [seat.compute.refreshing.basis for seat in seen.swarm.seats.values()]


def test_when_it_turns_is_a_function_of_the_round(text: Corpus) -> None:
    spec = turning_spec(text)
    assert [number for number in range(14) if gathers(spec, number)] == [3, 7, 11]
    assert [number for number in range(14) if switches(spec, number)] == [4, 8, 12]
    assert [basis_version(spec, number) for number in (0, 4, 5, 8, 9, 12, 13, 14)] == [0, 0, 1, 1, 2, 2, 3, 3]
    short = spec.replace(steps=13)  # round 12 is the last: nobody would train after that turn
    assert not gathers(short, 11)
    assert basis_version(short, 13) == 2


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("optimizer", [AdamW(), NAdam(), SGD(lr=0.05)], ids=lambda part: part.kind)
@pytest.mark.parametrize("replicas", [1, 2])
def test_it_equals_one_process_that_turns_too(text: Corpus, replicas: int, optimizer: Any) -> None:
    spec = turning_spec(text, replicas=replicas, optimizer=optimizer)
    seen = run_virtual(spec, text)
    assert_equals_reference(seen, spec, text, 1e-12)
    still = run_virtual(spec.replace(boundary=Subspace(4, "same")), text)
    assert {number: seen.losses[number] for number in range(5)} == {number: still.losses[number] for number in range(5)}
    assert seen.losses[5] != still.losses[5]


def test_muons_velocities_turn_as_the_weights_do(text: Corpus) -> None:
    spec = turning_spec(text, optimizer=Muon())
    assert_equals_reference(run_virtual(spec, text), spec, text, 2e-2)  # its iterations are in bfloat16


def test_all_replicas_of_all_stages_are_in_one_subspace_and_each_turn_is_between_two_validations(text: Corpus) -> None:
    spec = turning_spec(text, replicas=3, eval_every=0)
    seen = run_virtual(spec, text)
    found = bases(seen)
    assert len(found) == 9
    assert all(torch.equal(basis, found[0]) for basis in found)
    drawn = run_virtual(spec.replace(boundary=Subspace(4, "same"), steps=1), text).swarm.seats["worker-0"].compute.codecs.basis
    assert (found[0] - drawn).abs().max() > 1e-3
    assert all(len(digests) == 1 for digests in seen.digests().values())
    still = run_virtual(spec.replace(boundary=Subspace(4, "same"), eval_every=1), text)
    assert sorted(seen.validations) == [4, 5, 8, 9, 12, 13, 14]
    assert seen.validations[4] == still.validations[4]
    assert abs(seen.validations[5] - still.validations[5]) > 1e-5


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("part", [0.4, 0.46, 0.5, 0.54, 0.6])
def test_a_worker_that_dies_and_comes_back_around_a_turn_changes_nothing(text: Corpus, part: float) -> None:
    spec = turning_spec(text, replicas=2, steps=9)
    whole = run_virtual(spec, text)
    for worker in (0, 3, 5):
        seen = run_virtual(spec, text, kills=(Kill(f"worker-{worker}", int(whole.swarm.num_events * part), 0.005),))
        assert seen.losses == pytest.approx(whole.losses, abs=1e-12, rel=0)
        assert all(len(digests) == 1 for digests in seen.digests().values())
        assert all(torch.equal(basis, bases(seen)[0]) for basis in bases(seen))


def test_a_joiner_is_in_the_subspace_of_the_others(text: Corpus) -> None:
    spec = turning_spec(text, replicas=1, steps=20)
    whole = run_virtual(spec, text)
    for stage in range(3):
        seen = run_virtual(spec, text, attachments=(Attachment("worker-3", stage, whole.swarm.num_events // 2),))
        assert seen.losses == pytest.approx(whole.losses, abs=1e-12, rel=0)
        assert all(torch.equal(basis, bases(seen)[0]) for basis in bases(seen))
        assert {seat.machine.desk.state for seat in seen.swarm.seats.values()} == {"serving"}


@pytest.mark.parametrize("checkpoint", [4, 5, 8, 9])
def test_a_run_that_is_resumed_around_a_turn_goes_on_as_it_would_have(text: Corpus, checkpoint: int) -> None:
    """A checkpoint of round 4 has the next basis, which the tail has found and nobody has yet; that of round 5 is in it."""
    spec = turning_spec(text, replicas=2, checkpoint_every=1)
    whole = run_virtual(spec, text)
    states = {worker: whole.stored[worker, checkpoint] for worker in whole.swarm.seats}
    seen = run_virtual(spec, text, start=(checkpoint, states))
    assert seen.losses == {number: loss for number, loss in whole.losses.items() if number >= checkpoint}
    assert seen.digests() == whole.digests()


def test_a_plan_knows_of_the_turns(text: Corpus) -> None:
    from pluralis_lab.planning import plan

    spec = turning_spec(text, replicas=2)
    assert plan(spec, device_flops=1e9, vocab=text.info().vocab).tokens_per_s > 0
