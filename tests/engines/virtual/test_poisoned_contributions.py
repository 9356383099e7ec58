"""A replica that sends NaN, infinity or what would add up to it: it is expelled, the others go on as if it had died then."""

import dataclasses
import itertools
import math
import random
from typing import Any

import pytest
import torch

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.errors import RunError
from pluralis_lab.learning.usable import largest_gradient, largest_sum
from pluralis_lab.parts import AdamW, Dense, DiLoCo, FullSync, SliceSync, Subspace
from pluralis_lab.spec import RunSpec, worker_name
from pluralis_lab.worker import Expel
from pluralis_lab.worker.messages import Reduced
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.poison import TOO_LARGE, Poisoner
from tests.engines.virtual.test_butterfly import falsified
from tests.engines.virtual.test_killed_workers import assert_unharmed

LOCALLY: dict[str, Any] = {"boundary": Dense(), "optimizer": AdamW(lr=3e-3), "steps": 6}
RULES: dict[str, dict[str, Any]] = {
    "gather": {"sync": FullSync()},
    "butterfly": {"sync": FullSync(transport="butterfly")},
    "diloco": {"sync": DiLoCo(inner_steps=3), **LOCALLY},
    "slices": {"sync": SliceSync(fraction=0.4, every=2), **LOCALLY},
}
VALUES = [math.nan, math.inf, -math.inf, TOO_LARGE]
"""Each a number of float32, in which these runs are."""


def spec_of(text: Corpus, rule: str, **changes: Any) -> RunSpec:
    fields = {"stages": 2, "micro_batches": 2, "steps": 4, "eval_every": 0, "dtype": "float32", "boundary": Subspace(4)}
    return tiny_spec(text, **{**fields, **RULES[rule], **changes})


def assert_goes_on(seen: Observed, what: object) -> None:
    """All rounds are made, the weights are finite, and all replicas that are there have the same."""
    assert seen.swarm is not None
    assert sorted(seen.losses) == list(range(seen.swarm.spec.steps)), f"{what}: the run stalled"
    assert all(map(math.isfinite, seen.losses.values())), what
    assert all(len(digests) == 1 for digests in seen.digests().values()), f"{what}: replicas diverged"
    for seat in seen.swarm.seats.values():
        assert all(torch.isfinite(parameter).all() for parameter in seat.compute.parameters), what


@pytest.mark.drawn(keep=3)
@pytest.mark.parametrize("schedule", ["sync", "async"])
@pytest.mark.parametrize("rule", RULES)
def test_who_sends_what_cannot_be_computed_with_is_expelled_and_nobody_else(text: Corpus, rule: str, schedule: str) -> None:
    values = itertools.cycle(VALUES)
    for replicas, liar in ((2, 3), (3, 0), (4, 5)):  # a tail, a head, and one in the middle of its stage
        spec = spec_of(text, rule, replicas=replicas, schedule=schedule)
        lies = Poisoner(worker_name(liar), next(values), round_=1)
        seen = run_virtual(spec, text, on_event=lies)
        assert lies.lied_at, "it never came to lie"
        assert_goes_on(seen, (replicas, liar))
        reasons = seen.expelled()
        assert list(reasons) == [worker_name(liar)], reasons
        assert "NaN, infinity or a number beyond" in reasons[worker_name(liar)]


@pytest.mark.drawn(keep=3)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rule", ["gather", "butterfly"])
def test_the_losses_are_those_without_the_lie_where_each_round_is_exchanged(text: Corpus, rule: str, value: float) -> None:
    for replicas, liar in ((2, 0), (3, 5)):
        spec = spec_of(text, rule, replicas=replicas, boundary=Subspace(4, "same"), dtype="float64")
        whole = run_virtual(spec, text)
        lies = Poisoner(worker_name(liar), TOO_LARGE * 1e270 if value == TOO_LARGE else value, round_=1)
        seen = run_virtual(spec, text, on_event=lies)
        assert_unharmed(seen, whole, (replicas, liar), liars=frozenset({worker_name(liar)}))


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("rule", ["diloco", "slices"])
def test_where_replicas_train_locally_it_is_as_if_the_liar_had_been_lost_with_its_displacement(text: Corpus, rule: str) -> None:
    """The same run in which it says nothing in place of its lie, and is given up by the same replica at the same time."""
    for replicas, liar in ((2, 3), (3, 0)):
        spec = spec_of(text, rule, replicas=replicas, dtype="float64")
        seen = run_virtual(spec, text, on_event=Poisoner(worker_name(liar), math.nan, round_=1, restart_s=None))
        (at,) = [at for worker, at, kind, body in seen.reports if "sent NaN" in str(body.get("reason", ""))]
        by = seen.expelled()[worker_name(liar)].split()[2].rstrip(":")
        silent = Poisoner(worker_name(liar), math.nan, round_=1, says_nothing=True)

        def give_up(
            swarm: VirtualSwarm, silent: Poisoner = silent, liar: str = worker_name(liar), by: str = by, at: float = at
        ) -> None:
            silent(swarm)
            there = swarm.seats.get(liar)
            if there is not None and there.incarnation == 0 and swarm.now >= at:
                swarm._expel(by, swarm.seats[by], Expel(liar, 0, "says nothing"))

        alike = run_virtual(spec, text, on_event=give_up)
        assert silent.lied_at
        assert_goes_on(seen, (replicas, liar))
        assert seen.losses == pytest.approx(alike.losses, rel=1e-9)
        for name, seat in seen.swarm.seats.items():
            assert torch.allclose(seat.compute.local_sync.anchor, alike.swarm.seats[name].compute.local_sync.anchor, atol=1e-9)


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("schedule", ["sync", "async"])
@pytest.mark.parametrize("rule", RULES)
def test_who_lies_to_some_and_dies_keeps_nobody_waiting(text: Corpus, rule: str, schedule: str) -> None:
    rng = random.Random(drawn_seed())
    for replicas in (3, 4):
        spec = spec_of(text, rule, replicas=replicas, schedule=schedule)
        for dies_after in (0, rng.randrange(1, 12), rng.randrange(12, 60)):
            told = frozenset({worker_name(replicas + rng.randrange(1, replicas))})
            restart_s, loses_wire = rng.choice([None, 0.001, 0.02]), rng.random() < 0.5
            what = {"told": told, "dies_after": dies_after, "restart_s": restart_s, "loses_wire": loses_wire}
            seen = run_virtual(spec, text, on_event=Poisoner(worker_name(replicas), math.nan, round_=1, **what))
            assert_goes_on(seen, what)
            assert set(seen.expelled()) <= {worker_name(replicas)}, what


@pytest.mark.parametrize("replicas", [2, 3, 4])
def test_a_sum_that_no_usable_pieces_have_is_its_reducers_lie(text: Corpus, replicas: int) -> None:
    for value, schedule in ((math.nan, "sync"), (math.inf, "async"), (2 * largest_sum(torch.float32), "sync")):
        spec = spec_of(text, "butterfly", replicas=replicas, schedule=schedule)
        for told in (None, frozenset({"worker-0"})):
            lies = Poisoner("worker-1", value, round_=1, sums=True, told=told)
            seen = run_virtual(spec, text, on_event=lies)
            assert lies.lied_at
            assert_goes_on(seen, (value, told))
            assert list(seen.expelled()) == ["worker-1"]
            assert "sent a sum of round 1 that its pieces cannot add up to" in seen.expelled()["worker-1"]


@pytest.mark.parametrize("rule", ["gather", "butterfly"])
def test_after_the_largest_gradient_that_is_taken_a_joiner_takes_up_the_state(text: Corpus, rule: str) -> None:
    """An optimizer keeps its square, and who joins looks at that: the donor is honest, and must not be taken for a liar."""
    spec = spec_of(text, rule, replicas=3, steps=8)

    def enlarge(swarm: VirtualSwarm) -> None:
        sums = swarm.seats["worker-1"].compute.passes.sums
        if 1 in sums and sums[1].gradients:
            sums[1].gradients[0].view(-1)[0] = 0.4 * largest_gradient(torch.float32)  # half is the bound for one's own

    whole = run_virtual(spec, text, on_event=enlarge)
    assert whole.swarm is not None
    joins = Kill("worker-2", whole.swarm.num_events // 2, 0.001)
    seen = run_virtual(spec, text, kills=(joins,), on_event=enlarge)
    assert not seen.expelled()
    assert_goes_on(seen, rule)
    assert seen.swarm is not None
    joiner = seen.swarm.seats["worker-2"]
    assert joiner.incarnation == 1
    squares = max(float(kept["exp_avg_sq"].max()) for kept in joiner.compute.optimizer.state.values())
    assert squares > 1e20, "the gradient is not in the state"


@pytest.mark.parametrize("seed", [16, 46, 64, 88])
def test_a_false_sum_that_is_found_when_some_have_announced_it_leaves_nobody_apart(text: Corpus, seed: int) -> None:
    """Finite this time, told to all, and found by one that has announced it: the others may have made the step by then."""
    rng = random.Random(seed)
    replicas, round_ = rng.choice([3, 4]), rng.randrange(4)
    liar = worker_name(rng.randrange(replicas))
    chunks = set(rng.sample(range(64), rng.randrange(1, 30)))
    schedule = rng.choice(["sync", "async"])
    spec = spec_of(text, "butterfly", replicas=replicas, stages=1, boundary=Dense(), schedule=schedule)
    told: list[str] = []

    def lie(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send, seat = swarm.network.send, swarm.seats[liar]

            def speak(name: str, by: Any, effect: Any) -> None:
                message = effect.message
                if by is seat and isinstance(message, Reduced) and message.round == round_ and message.chunk in chunks:
                    told.append(effect.target)
                    effect = dataclasses.replace(effect, message=dataclasses.replace(message, payload=falsified(message.payload)))
                send(name, by, effect)

            swarm.network.send = speak  # type: ignore[method-assign]

    seen = run_virtual(spec, text, on_event=lie)
    assert told
    assert list(seen.expelled()) == [liar]
    assert_goes_on(seen, seed)


@pytest.mark.parametrize("rule", RULES)
def test_two_finite_numbers_whose_sum_would_be_infinite_are_each_its_authors_fault(text: Corpus, rule: str) -> None:
    spec = spec_of(text, rule, replicas=4, stages=1, boundary=Dense())
    largest = 0.75 * torch.finfo(torch.float32).max
    assert math.isfinite(largest)
    assert torch.tensor(largest) + torch.tensor(largest) == math.inf
    liars = [Poisoner(name, largest, round_=1) for name in ("worker-1", "worker-2")]

    def both(swarm: VirtualSwarm) -> None:
        for liar in liars:
            liar(swarm)

    seen = run_virtual(spec, text, on_event=both)
    assert_goes_on(seen, rule)
    assert set(seen.expelled()) == {"worker-1", "worker-2"}


@pytest.mark.parametrize("rule", RULES)
def test_an_honest_worker_whose_own_numbers_are_none_ends_the_run_and_says_so(text: Corpus, rule: str) -> None:
    spec = spec_of(text, rule, replicas=2)

    def diverge(swarm: VirtualSwarm) -> None:
        for total in swarm.seats["worker-1"].compute.passes.sums.values():
            if 2 in swarm.seats["worker-1"].compute.passes.sums and total.gradients:
                total.gradients[0].view(-1)[0] = math.nan

    with pytest.raises(RunError, match=r"in this worker's gradient of round [23]; lower the learning rate or find the fault"):
        run_virtual(spec, text, on_event=diverge)


def test_nothing_is_left_to_the_earlier_life_of_a_replica_that_joins_again(text: Corpus) -> None:
    """Drawn once: what worker-3 had told of a later round was heard when it was dead, and joining."""
    spec = spec_of(text, "slices", replicas=3, schedule="async", checkpoint_every=1)
    dies = {"dies_after": 72, "restart_s": None, "loses_wire": True}
    lies = Poisoner("worker-5", math.inf, round_=1, told=frozenset({"worker-3"}), **dies)
    kills = (Kill("worker-3", 625, 0.02, True), Kill("worker-1", 344, None, True))
    assert_goes_on(run_virtual(spec, text, kills=kills, on_event=lies), kills)


def draw_and_try(text: Corpus, rng: random.Random) -> tuple[Any, ...]:
    """Draw a spec, a lie and some kills that leave each stage an honest replica; return them, and whether the lie was told."""
    rule, schedule = rng.choice(list(RULES)), rng.choice(["sync", "async"])
    replicas, stages = rng.choice([(2, 2), (3, 1), (3, 2), (4, 2)])
    boundary = {"boundary": Dense()} if stages == 1 else {}
    spec = spec_of(
        text, rule, replicas=replicas, schedule=schedule, stages=stages, checkpoint_every=rng.choice([1, 4]), **boundary
    )
    liar = rng.randrange(spec.num_workers)
    mates = [worker_name(n) for n in range(spec.num_workers) if n // replicas == liar // replicas and n != liar]
    told = frozenset(rng.sample(mates, rng.randrange(1, len(mates) + 1)))
    lie: dict[str, Any] = {
        "round_": rng.randrange(spec.steps),
        "told": rng.choice([None, told]),
        "loses_wire": rng.random() < 0.5,
    }
    lie |= {"dies_after": rng.choice([None, 0, rng.randrange(8), rng.randrange(80)])}
    lie |= {"restart_s": rng.choice([None, 0.0001, 0.02, 0.5]), "sums": rng.random() < 0.3}
    spared = {
        rng.choice([n for n in range(replicas) if stage * replicas + n != liar]) + stage * replicas for stage in range(stages)
    }
    kills, most = [], {2: 500, 3: 900, 4: 1400}[replicas]
    for _ in range(rng.choice([0, 1, 2, 2])):
        number = rng.choice([n for n in range(spec.num_workers) if n not in spared and n != liar] or [liar])
        kills.append(Kill(worker_name(number), rng.randrange(1, most), rng.choice([None, 0.001, 0.02]), rng.random() < 0.7))
    lies = Poisoner(worker_name(liar), rng.choice(VALUES), **lie)
    what = (rule, schedule, stages, replicas, worker_name(liar), lies.value, lie, tuple(kills))
    seen = run_virtual(spec, text, kills=tuple(kills), on_event=lies)
    assert_goes_on(seen, what)
    assert seen.expelled().keys() <= {worker_name(liar)}, (what, seen.expelled())
    return rule, schedule, bool(lies.lied_at), worker_name(liar) in seen.expelled()


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_liars_and_deaths_at_drawn_moments_stall_nobody_and_leave_nobody_apart(text: Corpus) -> None:
    rng = random.Random(drawn_seed())
    for _ in range(12):
        draw_and_try(text, rng)


@pytest.mark.deep
@pytest.mark.timeout(1800)
def test_many_liars_and_deaths_stall_nobody_and_leave_nobody_apart(text: Corpus) -> None:
    rng = random.Random(drawn_seed())
    found = [draw_and_try(text, rng) for _ in range(400)]
    assert sum(lied for *_, lied, _ in found) > 200
    assert sum(is_expelled for *_, is_expelled in found) > 100
