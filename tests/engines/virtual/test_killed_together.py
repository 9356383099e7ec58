"""Several workers killed at once, or one after the other at the worst moments, with three replicas: nothing stalls."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.links import Links
from pluralis_lab.parts import Dense, Subspace
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import worker_name
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.test_killed_workers import assert_unharmed


def assert_survives(spec: RunSpec, text: Corpus, whole: Observed, kills: tuple[Kill, ...]) -> Observed:
    """Run with `kills`: the same losses as without, and no honest worker is taken for a liar."""
    seen = run_virtual(spec, text, kills=kills)
    assert_unharmed(seen, whole, kills)
    return seen


def draw(rng: random.Random, spec: RunSpec, num_events: int) -> tuple[Kill, ...]:
    """Draw two or three kills, close together more often than not, that leave each stage a replica."""
    while True:
        kills, moment = [], rng.randrange(1, num_events)
        for _ in range(rng.choice([2, 2, 3])):
            restart_s = rng.choice([None, 0.0001, 0.001, 0.02, 0.5])  # detection takes 0.2 s: later than most restarts
            kills.append(Kill(worker_name(rng.randrange(spec.num_workers)), moment, restart_s, rng.random() < 0.7))
            moment += rng.choice([0, 0, rng.randrange(8), rng.randrange(1, 60)])
        stages = [int(kill.worker.removeprefix("worker-")) // spec.replicas for kill in kills]
        if all(stages.count(stage) < spec.replicas for stage in stages):
            return tuple(kills)


def drawn_cases(text: Corpus, cases: int) -> None:
    rng = random.Random(drawn_seed())
    specs = []
    for stages, replicas in ((3, 3), (2, 3), (1, 3), (3, 2)):
        boundary = Dense() if stages == 1 else Subspace(4, "same")
        spec = tiny_spec(text, stages=stages, replicas=replicas, steps=4, boundary=boundary, checkpoint_every=rng.choice([1, 4]))
        specs.append((spec, run_virtual(spec, text)))
    for case in range(cases):
        spec, whole = specs[case % len(specs)]
        assert_survives(spec, text, whole, draw(rng, spec, whole.swarm.num_events))


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_workers_killed_together_cost_nothing(text: Corpus) -> None:
    drawn_cases(text, 20)


@pytest.mark.deep
@pytest.mark.timeout(1200)
def test_many_workers_killed_together_cost_nothing(text: Corpus) -> None:
    drawn_cases(text, 600)


def moments(spec: RunSpec, text: Corpus, condition: Callable[[VirtualSwarm], bool], kills: tuple[Kill, ...] = ()) -> list[int]:
    """Return after which numbers of events `condition` holds."""
    found = []

    def look(swarm: VirtualSwarm) -> None:
        if condition(swarm):
            found.append(swarm.num_events)

    run_virtual(spec, text, kills=kills, on_event=look)
    assert found, "the moment that this test is about never came"
    return found


def spread(found: list[int], count: int) -> list[int]:
    return found[:: max(1, len(found) // count)][:count]


def test_the_evaluating_head_is_killed(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=4)
    whole = run_virtual(spec, text)
    evaluating = moments(spec, text, lambda swarm: swarm.seats["worker-0"].machine.evaluation.is_pending)
    for moment in spread(evaluating, 4):
        for restart_s in (None, 0.001):
            assert_survives(spec, text, whole, (Kill("worker-0", moment, restart_s),))


def test_who_evaluates_is_killed_with_who_holds_a_validation_batch(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=3, steps=3)
    whole = run_virtual(spec, text)
    evaluating = moments(spec, text, lambda swarm: swarm.seats["worker-0"].machine.evaluation.is_pending)
    for moment in spread(evaluating, 3):
        kills = (Kill("worker-8", moment, 0.02), Kill("worker-0", moment + 6, 0.001))
        assert_survives(spec, text, whole, kills)


def test_the_other_heads_are_lost_while_the_last_one_makes_the_step(text: Corpus) -> None:
    spec = tiny_spec(text, stages=1, replicas=3, steps=4, boundary=Dense())
    whole = run_virtual(spec, text)

    def applies(swarm: VirtualSwarm) -> bool:
        desk = swarm.seats["worker-1"].machine.desk
        return desk.round == 1 and desk.current().applying is not None

    found = moments(spec, text, applies)
    for moment in range(found[0] - 3, found[0] + 1):
        for other in ("worker-0", "worker-2"):
            kills = (Kill(other, moment, None), Kill("worker-2" if other == "worker-0" else "worker-0", moment + 2, None))
            assert_survives(spec, text, whole, kills)


@pytest.mark.parametrize("state", ["joining", "syncing"])
def test_a_joiner_is_killed_before_it_has_the_state(text: Corpus, state: str) -> None:
    spec = tiny_spec(text, replicas=2, steps=4)
    whole = run_virtual(spec, text)
    first = Kill("worker-3", whole.swarm.num_events // 3, 0.001)

    def joins(swarm: VirtualSwarm) -> bool:
        seat = swarm.seats.get("worker-3")
        return seat is not None and seat.incarnation == 1 and seat.machine.desk.state == state

    for moment in spread(moments(spec, text, joins, (first,)), 3):
        seen = assert_survives(spec, text, whole, (first, Kill("worker-3", moment, 0.001)))
        assert seen.swarm.seats["worker-3"].incarnation == 2


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("state", ["joining", "syncing"])
def test_the_donor_is_killed_while_a_joiner_waits(text: Corpus, state: str) -> None:
    spec = tiny_spec(text, replicas=3, steps=4)
    whole = run_virtual(spec, text)
    first = Kill("worker-5", whole.swarm.num_events // 3, 0.001)

    def joins(swarm: VirtualSwarm) -> bool:
        seat = swarm.seats.get("worker-5")
        return seat is not None and seat.incarnation == 1 and seat.machine.desk.state == state

    for moment in spread(moments(spec, text, joins, (first,)), 4):
        assert_survives(spec, text, whole, (first, Kill("worker-3", moment, 0.02)))


def test_contributions_on_their_way_are_asked_for_of_one_replica(text: Corpus) -> None:
    """Every answer is as large as what comes from the author anyway."""
    slow = [(worker_name(number), "*", f"{4 + 2 * number}mbit", 10 + 9 * number) for number in range(8)]
    spec = tiny_spec(text, stages=1, replicas=8, boundary=Dense(), steps=4, batch_size=8, micro_batches=1)
    most = Counter[tuple[str, int, str]]()

    def look(swarm: VirtualSwarm) -> None:
        for name, seat in swarm.seats.items():
            for round_, state in seat.machine.desk.rounds.items():
                for (author, _), holders in Counter(part for _, part in state.fetching).items():
                    most[name, round_, author] = max(most[name, round_, author], holders)

    run_virtual(spec, text, links=Links("10mbit", 20, pairs=slow), on_event=look)
    assert most, "nothing was asked for"
    assert set(most.values()) == {1}


def test_a_joiner_that_asks_during_the_last_step_is_let_in(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=3)
    whole = run_virtual(spec, text)
    for moment in range(whole.swarm.num_events * 9 // 10, whole.swarm.num_events, 7):
        assert_survives(spec, text, whole, (Kill("worker-2", moment, 0.0001),))


def test_a_long_run_keeps_no_old_rounds(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, stages=2, steps=100, eval_every=25, epoch_rounds=25, checkpoint_every=50)
    most = {"rounds": 0, "future": 0, "validation": 0}

    def look(swarm: VirtualSwarm) -> None:
        for seat in swarm.seats.values():
            machine = seat.machine
            most["rounds"] = max(most["rounds"], len(machine.desk.rounds))
            most["future"] = max(most["future"], len(machine._future))
            most["validation"] = max(most["validation"], len(machine.evaluation._sent))

    seen = run_virtual(spec, text, on_event=look)
    assert sorted(seen.losses) == list(range(100))
    assert most["rounds"] <= 3
    assert most["future"] <= 4 * spec.num_micro_batches
    assert most["validation"] <= spec.eval_batches
    for seat in seen.swarm.seats.values():
        assert len(seat.machine.desk.rounds) <= 2
        assert not seat.machine._future
