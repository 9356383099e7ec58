"""`schedule="async"`: stages do not wait for each other, gradients come late, and each is the one it should be."""

import random
from pathlib import Path

import pytest
import torch

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.learning import tasks
from pluralis_lab.learning.delays import expected_delay, stage_rule
from pluralis_lab.learning.optimizers import build_optimizer, learning_rate
from pluralis_lab.learning.reference import whole_model
from pluralis_lab.links import Links
from pluralis_lab.parts import GPT, Dense, NAdam
from pluralis_lab.spec import RunSpec
from pluralis_lab.store.checkpoints import CheckpointFolder, common_versions, versions_kept
from pluralis_lab.worker import Received, Send
from pluralis_lab.worker.messages import Activation, Committed
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec

FAST = Links("100gbit", 0)
Versions = dict[tuple[int, int, int], int]


def async_spec(corpus: Corpus, **changes: object) -> RunSpec:
    fields = {"schedule": "async", "boundary": Dense(), "optimizer": NAdam(lr=5e-3), "steps": 12, **changes}
    return tiny_spec(corpus, **fields)


def run_and_note(spec: RunSpec, corpus: Corpus, **options: object) -> tuple[Observed, Versions]:
    """Run in virtual time; return also how many steps the weights had that each (stage, round, index) went forward with."""
    versions: Versions = {}

    def spy(swarm: VirtualSwarm) -> None:
        for seat in swarm.seats.values():
            if not getattr(seat.compute, "is_spied", False):
                seat.compute.is_spied = True  # type: ignore[attr-defined]
                seat.compute.run = noting(seat.compute, seat.compute.run)  # type: ignore[method-assign]

    def noting(compute, run):
        def observe(task: tasks.Task) -> tasks.Result:
            if isinstance(task, tasks.Forward) and task.counts:
                versions[compute.index, task.round, task.index] = compute.passes.version
            return run(task)

        return observe

    return run_virtual(spec, corpus, on_event=spy, **options), versions


def one_process(spec: RunSpec, corpus: Corpus, versions: Versions, factors: tuple[float, ...] = (1.0, 1.0, 1.0)) -> list[float]:
    """Train in a plain loop in which each micro-batch sees, at each stage, the weights of that version. Returns losses.

    factors : what each stage's rate is multiplied by
    """
    stages = whole_model(spec, corpus.info().vocab)
    optimizers = [build_optimizer(stage, stage_rule(spec, index)) for index, stage in enumerate(stages)]
    history = [[{name: p.detach().clone() for name, p in stage.named_parameters()}] for stage in stages]
    scale = spec.num_micro_batches * spec.tokens_per_micro_batch
    losses = []
    for round_ in range(spec.steps):
        sums = [[torch.zeros_like(p) for p in stage.parameters()] for stage in stages]
        total = 0.0
        for index in range(spec.num_micro_batches):
            ids = torch.as_tensor(corpus.micro_batch(spec.seed, round_, index, spec.micro_batch_size).inputs).to(torch.int64)
            x, used = ids[:, :-1], []
            for number, stage in enumerate(stages):
                old = history[number][versions[number, round_, index]]
                weights = {name: array.clone().requires_grad_() for name, array in old.items()}
                used.append(list(weights.values()))
                if stage.is_last:
                    loss = torch.func.functional_call(
                        _LossOf(stage), {f"stage.{k}": v for k, v in weights.items()}, (x, ids[:, 1:])
                    )
                else:
                    x = torch.func.functional_call(stage, weights, (x,))
            found = torch.autograd.grad(loss / scale, [weight for weights in used for weight in weights])
            total += loss.item()
            for number, weights in enumerate(used):
                own, found = found[: len(weights)], found[len(weights) :]
                for array, gradient in zip(sums[number], own, strict=True):
                    array += gradient
        for stage, optimizer, gradients, past, factor in zip(stages, optimizers, sums, history, factors, strict=True):
            for parameter, gradient in zip(stage.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.lr = learning_rate(spec.optimizer, round_) * factor
            optimizer.step()
            past.append({name: p.detach().clone() for name, p in stage.named_parameters()})
        losses.append(total / scale)
    return losses


class _LossOf(torch.nn.Module):
    def __init__(self, stage: torch.nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.stage.loss_sum(self.stage(x), targets)


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_gradient_is_that_of_the_weights_its_micro_batch_went_forward_with(text: Corpus, replicas: int) -> None:
    spec = async_spec(text, replicas=replicas)
    seen, versions = run_and_note(spec, text)
    assert max(round_ - version for (_, round_, _), version in versions.items()) >= 2, "nothing was late: this shows nothing"
    expected = one_process(spec, text, versions)
    assert [seen.losses[number] for number in range(spec.steps)] == pytest.approx(expected, abs=1e-12, rel=0)
    assert all(len(digests) == 1 for digests in seen.digests().values()), "replicas diverged"
    assert seen.swarm is not None
    assert {seat.machine.desk.state for seat in seen.swarm.seats.values()} == {"serving"}
    assert 12 in seen.validations


def test_with_one_micro_batch_under_way_it_is_the_synchronous_run_to_the_bit(text: Corpus) -> None:
    one_by_one = {"batch_size": 2, "micro_batches": 1, "eval_every": 0}
    late = run_virtual(async_spec(text, in_flight=1, **one_by_one), text)
    waiting = run_virtual(async_spec(text, schedule="sync", **one_by_one), text)
    assert late.losses == waiting.losses
    assert late.digests() == waiting.digests()
    assert late.validations == waiting.validations


def test_there_is_no_bubble(text: Corpus) -> None:
    """The stage with the most work, the tail, is never idle once the first micro-batch has come."""
    busy = {}
    for schedule in ("async", "sync"):
        spec = async_spec(text, schedule=schedule, micro_batches=1, batch_size=4, steps=40, eval_every=0)
        seen = run_virtual(spec, text, links=FAST)
        assert seen.swarm is not None
        work = [(at, body["compute_s"]) for worker, at, kind, body in seen.reports if kind == "work" and worker == "worker-2"]
        busy[schedule] = sum(seconds for _, seconds in work[1:]) / (work[-1][0] - work[0][0])
    assert busy["async"] > 0.99
    assert busy["sync"] < 0.7


def test_delays_are_reported_and_are_what_1f1b_gives(text: Corpus) -> None:
    spec = async_spec(text, stages=3, micro_batches=1, batch_size=2, in_flight=3, steps=30, eval_every=0)
    late = {worker: body["delay"] for worker, body in run_virtual(spec, text, links=FAST).of_kind("work") if body["round"] == 20}
    assert late["worker-0"] == expected_delay(spec, 0) == 2
    assert late["worker-2"] == expected_delay(spec, 2) == 0
    assert expected_delay(spec, 1) == 1
    assert 1 <= late["worker-1"] <= 2  # the tail has more to do, so there is one that waits before it


def test_a_synchronous_run_reports_no_delays(text: Corpus) -> None:
    assert all("delay" not in body for _, body in run_virtual(tiny_spec(text), text).of_kind("work"))


def test_what_is_under_way_and_kept_is_bounded(text: Corpus) -> None:
    spec = async_spec(text, replicas=2, in_flight=4, steps=20)
    most: dict[str, int] = {"under way": 0, "copies": 0, "rounds": 0}

    def look(swarm: VirtualSwarm) -> None:
        for seat in swarm.seats.values():
            desk = seat.machine.desk
            most["under way"] = max(most["under way"], sum(len(s.claimed - s.counted) for s in desk.rounds.values()))
            most["rounds"] = max(most["rounds"], len(desk.rounds))
            if seat.compute.passes.stash is not None:
                most["copies"] = max(most["copies"], seat.compute.passes.stash.num_copies)

    run_virtual(spec, text, on_event=look)
    assert most["under way"] == 4
    assert 2 <= most["copies"] <= spec.window + 1
    assert most["rounds"] <= 3 * spec.window + 2


def test_a_late_stage_learns_at_its_rate_over_its_delay(text: Corpus) -> None:
    spec = async_spec(text, micro_batches=1, optimizer=NAdam(lr=5e-3, beta1=0.95, beta2=0.95, delay_power=1.0))
    seen, versions = run_and_note(spec, text)
    late = one_process(spec, text, versions, factors=(1 / 2, 1.0, 1.0))  # gradients are 2, 1 and 0 steps late
    assert [seen.losses[number] for number in range(spec.steps)] == pytest.approx(late, abs=1e-12, rel=0)
    assert max(abs(one - other) for one, other in zip(late, one_process(spec, text, versions), strict=True)) > 1e-4


def test_without_stashing_a_micro_batch_comes_back_through_the_newest_weights(text: Corpus) -> None:
    spec = async_spec(text, stashing=False, replicas=2, steps=20, optimizer=NAdam(lr=3e-3))
    seen = run_virtual(spec, text)
    assert seen.losses[19] < 0.9 * seen.losses[0]
    assert all(len(digests) == 1 for digests in seen.digests().values())
    assert seen.losses != run_virtual(spec.replace(stashing=True), text).losses
    assert seen.swarm is not None
    assert all(seat.compute.passes.stash is None for seat in seen.swarm.seats.values())


def test_an_asynchronous_simulation_repeats_to_the_bit_with_deaths(text: Corpus) -> None:
    spec = async_spec(text, replicas=2)
    kills = (Kill("worker-2", 150, restart_s=0.01), Kill("worker-1", 400, restart_s=None))
    first, second = run_virtual(spec, text, kills=kills), run_virtual(spec, text, kills=kills)
    assert first.reports == second.reports
    assert first.statements == second.statements


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_a_worker_killed_at_a_drawn_moment_stalls_nobody(text: Corpus) -> None:
    rng = random.Random(drawn_seed())
    for replicas, cases in ((2, 8), (3, 3)):
        spec = async_spec(text, replicas=replicas, steps=8)
        whole = run_virtual(spec, text)
        assert whole.swarm is not None
        for _ in range(cases):
            kills = [
                Kill(
                    f"worker-{rng.randrange(spec.num_workers)}",
                    rng.randrange(1, whole.swarm.num_events),
                    rng.choice([None, 0.001, 0.02, 0.5]),
                    rng.random() < 0.7,
                )
                for _ in range(rng.choice([1, 1, 2]))
            ]
            if len({(int(kill.worker.removeprefix("worker-")) // replicas) for kill in kills}) < len(kills):
                continue  # a stage of two cannot lose both
            assert_goes_on(run_virtual(spec, text, kills=tuple(kills)), whole, kills)


def assert_goes_on(seen: Observed, whole: Observed, what: object) -> None:
    """Every round is there, replicas hold the same weights, all that live serve, and nobody was expelled."""
    assert sorted(seen.losses) == sorted(whole.losses), f"{what}: rounds are missing, the run stalled"
    assert all(len(digests) == 1 for digests in seen.digests().values()), f"{what}: replicas diverged"
    assert seen.swarm is not None
    states = {name: seat.machine.desk.state for name, seat in seen.swarm.seats.items()}
    assert set(states.values()) == {"serving"}, f"{what}: {states}"
    assert max(seen.validations) == max(whole.validations), f"{what}: the last validation is missing"
    assert not seen.expelled(), what
    last = max(whole.losses)
    assert seen.losses[last] == pytest.approx(whole.losses[last], rel=0.1), f"{what}: another model"


def test_an_old_round_is_not_computed_again_for_a_stage_that_is_done_with_it(text: Corpus) -> None:
    spec = async_spec(text, replicas=1, in_flight=4)
    kept: list[tuple[VirtualSwarm, Activation]] = []

    def keep_first(swarm: VirtualSwarm) -> None:
        state = swarm.seats["worker-0"].machine.desk.rounds.get(0)
        if not kept and state is not None and 0 in state.sent:
            kept.append((swarm, state.sent[0]))

    seen = run_virtual(spec, text, on_event=keep_first)
    (_, first), swarm = kept[0], seen.swarm
    assert swarm is not None
    machine = swarm.seats["worker-1"].machine
    before = len(machine.desk.rounds)
    effects = machine.handle(Received("worker-0", first))
    assert [type(effect) for effect in effects] == [Send]
    assert isinstance(effects[0].message, Committed)
    assert len(machine.desk.rounds) == before


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("every", [1, 2, 4, 25])
def test_whenever_an_async_run_stops_all_stages_have_a_version_in_common(every: int, text: Corpus, tmp_path: Path) -> None:
    spec = async_spec(
        text, model=GPT(n_layer=6, n_head=2, d_model=16, context=16), stages=6, micro_batches=1, steps=40, checkpoint_every=every
    )
    stages = [[CheckpointFolder(tmp_path / str(stage), keep=versions_kept(spec))] for stage in range(spec.stages)]
    for (folder,) in stages:
        folder.path.mkdir()
    without: list[dict[int, list[int]]] = []

    def look(stored: dict[tuple[str, int], tuple[bytes, str]]) -> None:
        for (worker, version), (state, digest) in stored.items():
            folder = stages[spec.stage_of(int(worker.removeprefix("worker-")))][0]
            folder.save(version, state, digest)
        stored.clear()
        if all(folder.versions() for (folder,) in stages) and not common_versions(stages):
            without.append({number: folder.versions() for number, (folder,) in enumerate(stages)})

    seen = run_virtual(spec, text, links=FAST, on_stored=look)
    assert seen.swarm is not None
    assert not without, f"{len(without)} moments without a common version; the first: {without[0]}"
    assert len(common_versions(stages)) >= 2 or every > spec.steps // 2
