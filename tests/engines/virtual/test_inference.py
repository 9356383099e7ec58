"""Texts and losses through the stages: what one process with the whole model says, whoever dies on the way."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.engines.virtual.swarm import DEVICE_FLOPS
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.inference import MAX_TEXTS, choose
from pluralis_lab.learning.limits import MAX_QUESTIONS
from pluralis_lab.links import Links
from pluralis_lab.models.stage import Stage
from pluralis_lab.parts import MLP, Boundary, Dense, Int8, Subspace
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import Answer, Probed, Prompted, Received, Withdrawn
from pluralis_lab.worker.inference import MAX_ATTEMPTS, window_start
from pluralis_lab.worker.messages import ProbeDone, ProbeMislaid
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec

LATE = 1e6
"""Virtual seconds by which training is over."""
REQUEST = "00000000000000a1"
PROMPT = tuple(b"def return ")


def whole(seen: Observed) -> list[Stage]:
    """Return one replica of each stage as it is after the run."""
    assert seen.swarm is not None
    by_stage = {seat.compute.index: seat.compute.module for seat in seen.swarm.seats.values()}
    return [by_stage[stage] for stage in sorted(by_stage)]


def one_process(stages: list[Stage], prompt: tuple[int, ...], tokens: int, context: int, draw: tuple[float, int]) -> list[int]:
    """Write on without caches: all of the window again for each token."""
    ids = list(prompt)
    temperature, seed = draw
    for _ in range(tokens):
        x = torch.tensor([ids[window_start(len(ids), context) :]])
        with torch.no_grad():
            for stage in stages:
                x = stage(x)
            scores = stages[-1].logits(x[:, -1:])[0, 0]
        ids.append(choose(scores, tasks.Draw(len(ids), temperature, seed)))
    return ids[len(prompt) :]


def prompted(tokens: int, *, request: str = REQUEST, temperature: float = 0.0, seed: int = 0) -> Prompted:
    return Prompted(request, PROMPT, tokens, temperature, seed)


@pytest.mark.parametrize("draw", [(0.0, 0), (1.5, 7)], ids=["greedy", "drawn"])
@pytest.mark.parametrize(
    ("stages", "boundary"),
    [(3, Subspace(4, "same")), (2, Dense("same")), (1, Dense("same"))],
    ids=["three, subspace", "two, dense", "one"],
)
def test_a_text_is_what_one_process_writes_also_beyond_the_context(
    text: Corpus, stages: int, boundary: Boundary, draw: tuple[float, int]
) -> None:
    spec = tiny_spec(text, stages=stages, replicas=1, boundary=boundary)
    seen = run_virtual(spec, text, asks=((LATE, "worker-0", prompted(40, temperature=draw[0], seed=draw[1])),))
    written = seen.text(REQUEST)
    assert len(written) == 40
    assert written == one_process(whole(seen), PROMPT, 40, 16, draw)


def test_the_same_seed_draws_the_same_text_and_another_one_another(text: Corpus) -> None:
    requests = {f"{number:016x}": seed for number, seed in enumerate([1, 1, 2])}
    asks = tuple((LATE, "worker-0", prompted(12, request=name, temperature=1.5, seed=seed)) for name, seed in requests.items())
    seen = run_virtual(tiny_spec(text), text, asks=asks)
    first, again, other = (seen.text(name) for name in requests)
    assert first == again != other


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_a_text_that_is_written_while_training_goes_on_is_of_the_weights_at_its_beginning(text: Corpus, schedule: str) -> None:
    spec = tiny_spec(text, steps=40, schedule=schedule, eval_every=0, stages=2, replicas=1)
    begun: dict[int, Stage] = {}
    ended: dict[int, Stage] = {}

    def spy(swarm: VirtualSwarm) -> None:
        if swarm.num_events:
            return
        for seat in swarm.seats.values():
            seat.compute.run = copying(seat.compute, seat.compute.run)  # type: ignore[method-assign]

    def copying(compute: StageCompute, run: Callable[[tasks.Task], tasks.Result]) -> Callable[[tasks.Task], tasks.Result]:
        def observe(task: tasks.Task) -> tasks.Result:
            if isinstance(task, tasks.Infer):
                (begun if task.start == 0 else ended)[compute.index] = copy.deepcopy(compute.module)
            return run(task)

        return observe

    seen = run_virtual(spec, text, asks=((0.002, "worker-0", prompted(5, temperature=2.0)),), on_event=spy)
    assert seen.swarm is not None
    assert seen.answered_at[REQUEST][-1] < seen.swarm.num_events / 2, "training was over"
    for stage in (0, 1):
        pairs = zip(begun[stage].parameters(), ended[stage].parameters(), strict=True)
        assert not all(torch.equal(first, last) for first, last in pairs), "no step was made meanwhile"
    assert seen.text(REQUEST) == one_process([begun[0], begun[1]], PROMPT, 5, 16, (2.0, 0))


@pytest.mark.parametrize("stages", [1, 3])
def test_a_prompt_takes_the_time_of_its_tokens(text: Corpus, stages: int) -> None:
    spec = tiny_spec(text, stages=stages, replicas=1, boundary=Dense("same"), steps=2)
    slow = {f"worker-{number}": 1e-4 for number in range(stages)}
    took = {}
    for tokens in (1, 15):
        asked = Prompted(REQUEST, PROMPT[:1] * tokens, 1, 0.0, 0)
        seen = run_virtual(spec, text, asks=((LATE, "worker-0", asked),), speeds=slow, links=Links("100gbit", 0))
        assert len(seen.text(REQUEST)) == 1
        assert seen.swarm is not None
        took[tokens] = seen.swarm.now - LATE
    # What both have in common is the end of a text, which takes as long whatever it had.
    cost = sum(seat.machine.flops_per_token for seat in seen.swarm.seats.values()) / (1e-4 * DEVICE_FLOPS)
    assert took[15] - took[1] == pytest.approx(14 * cost, rel=1e-3)


def test_questions_do_not_change_what_is_trained(text: Corpus) -> None:
    spec = tiny_spec(text, steps=8, replicas=2)
    asks = ((0.001, "worker-0", prompted(9)), (0.002, "worker-1", Probed("00000000000000b2", 3)))
    asked, plain = run_virtual(spec, text, asks=asks), run_virtual(spec, text)
    assert asked.losses == plain.losses
    assert asked.digests() == plain.digests()
    assert len(asked.text(REQUEST)) == 9


def test_a_text_goes_on_as_it_was_when_workers_on_its_way_die(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2)
    asks = ((LATE, "worker-0", prompted(20, temperature=1.0, seed=3)),)
    undisturbed = run_virtual(spec, text, asks=asks)
    for victim in ("worker-2", "worker-3", "worker-4", "worker-5"):
        for token in (0, 3, 11):
            kill = Kill(victim, undisturbed.answered_at[REQUEST][token], restart_s=None)
            seen = run_virtual(spec, text, asks=asks, kills=(kill,))
            assert seen.text(REQUEST) == undisturbed.text(REQUEST), f"{victim} died after token {token}"


def test_texts_beyond_what_a_stage_keeps_are_begun_anew_and_none_is_lost(text: Corpus) -> None:
    """Three heads write as many texts as they may through the one worker that is left of the next stage."""
    spec = tiny_spec(text, stages=2, replicas=3)
    assert 3 * MAX_QUESTIONS > MAX_TEXTS
    requests = [f"{number:016x}" for number in range(3 * MAX_QUESTIONS)]
    asks = tuple((LATE, f"worker-{number % 3}", prompted(6, request=name)) for number, name in enumerate(requests))
    done = run_virtual(spec, text).swarm
    assert done is not None
    kills = tuple(Kill(name, done.num_events - 1, restart_s=None) for name in ("worker-4", "worker-5"))
    seen = run_virtual(spec, text, asks=asks, kills=kills)
    assert len({tuple(seen.text(name)) for name in requests}) == 1
    assert seen.swarm is not None
    for seat in seen.swarm.seats.values():
        assert seat.compute.inference is not None
        assert seat.compute.inference._stash.num_copies <= 1


def test_a_stage_without_a_worker_is_an_answer_too(text: Corpus) -> None:
    spec = tiny_spec(text)
    done = run_virtual(spec, text).swarm
    assert done is not None
    asks = ((LATE, "worker-0", prompted(6)), (LATE, "worker-0", Withdrawn("00000000000000ff")))
    seen = run_virtual(spec, text, asks=asks, kills=(Kill("worker-1", done.num_events - 1, restart_s=None),))
    (answer,) = seen.answers[REQUEST]
    assert answer.is_last
    assert "stage 1 has no live worker" in answer.error


def test_who_cannot_answer_says_so(text: Corpus) -> None:
    requests = [f"{number:016x}" for number in range(MAX_QUESTIONS + 1)]
    asks = tuple((LATE, "worker-0", prompted(9, request=name)) for name in requests)
    seen = run_virtual(tiny_spec(text), text, asks=(*asks, (LATE, "worker-1", prompted(3, request="f" * 16))))
    assert "writes 4 texts already" in seen.answers[requests[-1]][0].error
    assert "a live worker of stage 0 can" in seen.answers["f" * 16][0].error
    assert all(len(seen.text(name)) == 9 for name in requests[:-1])


def test_a_withdrawn_text_ends_and_leaves_no_cache(text: Corpus) -> None:
    asks = ((LATE, "worker-0", prompted(10_000)), (LATE + 0.01, "worker-0", Withdrawn(REQUEST)))
    seen = run_virtual(tiny_spec(text), text, asks=asks)
    assert 0 < len(seen.answers[REQUEST]) < 10_000
    assert seen.swarm is not None
    for seat in seen.swarm.seats.values():
        assert seat.compute.inference is not None
        assert not seat.compute.inference._texts
        assert not seat.machine.inference._ways
        assert not seat.machine.inference._texts


def test_a_text_that_has_to_go_another_way_leaves_no_cache_on_the_old_one(text: Corpus) -> None:
    """It begins while one of the last stage's workers is away, and is begun anew when it is back, as the one before them dies."""
    spec = tiny_spec(text, replicas=2)
    done = run_virtual(spec, text).swarm
    assert done is not None
    kills = (
        Kill("worker-5", done.num_events - 1, restart_s=LATE + 0.005),
        Kill("worker-2", done.num_events + 100, restart_s=None),
    )
    seen = run_virtual(spec, text, asks=((LATE, "worker-0", prompted(30)),), kills=kills)
    assert len(seen.text(REQUEST)) == 30
    assert seen.swarm is not None
    for name, seat in seen.swarm.seats.items():
        assert seat.compute.inference is not None
        assert not seat.compute.inference._texts, name
        assert not seat.machine.inference._ways, name


def test_caches_go_when_a_text_is_complete(text: Corpus) -> None:
    seen = run_virtual(tiny_spec(text, replicas=2), text, asks=((LATE, "worker-1", prompted(5)),))
    assert seen.swarm is not None
    for seat in seen.swarm.seats.values():
        assert seat.compute.inference is not None
        assert not seat.compute.inference._texts
        assert not seat.machine.inference._ways


@pytest.mark.parametrize("boundary", [Subspace(4, "same"), Int8()], ids=["subspace", "int8"])
def test_a_loss_is_the_runs_own_validation_when_nothing_has_changed_since(text: Corpus, boundary: Boundary) -> None:
    spec = tiny_spec(text, replicas=2, boundary=boundary)
    seen = run_virtual(spec, text, asks=((LATE, "worker-0", Probed(REQUEST, spec.eval_batches)),))
    (answer,) = seen.answers[REQUEST]
    assert answer.is_last
    assert answer.tokens == spec.eval_batches * spec.tokens_per_micro_batch
    assert answer.loss == pytest.approx(seen.validations[spec.steps], rel=1e-12)


def test_a_loss_comes_also_when_workers_die_while_it_is_measured(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2)
    asks = ((LATE, "worker-0", Probed(REQUEST, 8)),)
    undisturbed = run_virtual(spec, text, asks=asks)
    assert undisturbed.swarm is not None
    first = run_virtual(spec, text).swarm
    assert first is not None
    drawn = range(first.num_events, undisturbed.answered_at[REQUEST][0])
    seed = drawn_seed()
    for number in range(6):
        at = drawn[(seed + number * 7) % len(drawn)]
        seen = run_virtual(spec, text, asks=asks, kills=(Kill(f"worker-{2 + (seed + number) % 4}", at, restart_s=None),))
        assert seen.answers[REQUEST] == undisturbed.answers[REQUEST]


@pytest.mark.parametrize("victim", ["worker-1", "worker-2"])
def test_a_loss_through_a_stage_without_a_worker_is_an_answer_too(text: Corpus, victim: str) -> None:
    """Whether the head itself finds nobody there, or a worker on the way."""
    spec = tiny_spec(text)
    done = run_virtual(spec, text).swarm
    assert done is not None
    kill = Kill(victim, done.num_events - 1, restart_s=None)
    seen = run_virtual(spec, text, asks=((LATE, "worker-0", Probed(REQUEST, 2)),), kills=(kill,))
    (answer,) = seen.answers[REQUEST]
    assert answer.is_last
    assert f"stage {victim[-1]} has no live worker" in answer.error


def test_a_head_asks_again_for_a_loss_that_found_nobody_and_not_for_ever(text: Corpus) -> None:
    seen = run_virtual(tiny_spec(text), text)
    assert seen.swarm is not None
    head = seen.swarm.seats["worker-0"].machine
    (asked,) = head.handle(Probed(REQUEST, 2))
    back = Received("worker-1", ProbeMislaid(REQUEST, 0, "stage 2 has no live worker at the moment"))
    for _ in range(MAX_ATTEMPTS - 1):
        assert head.handle(back) == [asked]
    (following,) = head.handle(Received("worker-2", ProbeDone(REQUEST, 0, 3.0, seen.swarm.spec.tokens_per_micro_batch)))
    assert head.handle(back) == [], "it has that one meanwhile"
    back = Received("worker-1", ProbeMislaid(REQUEST, 1, "stage 2 has no live worker at the moment"))
    for _ in range(MAX_ATTEMPTS - 1):
        assert head.handle(back) == [following]
    assert head.handle(back) == [Answer(REQUEST, error="stage 2 has no live worker at the moment", is_last=True)]
    assert head.handle(back) == []


def test_a_model_of_vectors_evaluates_and_writes_nothing(tmp_path: Path) -> None:
    digits = open_corpus("digits", context=None, home=tmp_path)
    spec = RunSpec(
        model=MLP([64, 16, 10]), data="digits", stages=2, steps=4, batch_size=8, micro_batches=2, eval_every=0, checkpoint_every=4
    )
    asks = ((LATE, "worker-0", prompted(3)), (LATE, "worker-0", Probed("00000000000000b2", spec.eval_batches)))
    seen = run_virtual(spec, digits, asks=asks)
    assert "reads vectors" in seen.answers[REQUEST][0].error
    assert seen.answers["00000000000000b2"][0].loss == pytest.approx(seen.validations[4])


def test_window_start_is_the_same_whoever_asks_and_leaves_room() -> None:
    for context in (2, 3, 16, 17):
        starts = [window_start(length, context) for length in range(1, 5 * context)]
        assert starts == sorted(starts)
        assert all(0 < length - start <= context for length, start in enumerate(starts, 1))
        assert starts[context - 1] == 0 < starts[context]
