"""A worker that is stopped for a while, and has not died: it is set aside, the others go on, and it comes back."""

import itertools
import random
from typing import Any

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Freeze, Kill, VirtualSwarm
from pluralis_lab.links import Links
from pluralis_lab.parts import DiLoCo
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.test_killed_workers import assert_unharmed

CIRCUMSTANCES: list[dict[str, Any]] = [
    {},
    {"schedule": "async", "eval_every": 0},
    {"sync": DiLoCo(inner_steps=3), "eval_every": 0},
]


def states(seen: Observed, worker: str) -> list[str]:
    return [body["state"] for name, body in seen.of_kind("state") if name == worker]


def counted(seen: Observed) -> dict[tuple[int, int], int]:
    """Return the tokens that each stage says it counted, by (stage, round)."""
    assert seen.swarm is not None
    sums: dict[tuple[int, int], int] = {}
    for worker, body in seen.of_kind("work"):
        place = seen.swarm._grid[worker][0], body["round"]
        sums[place] = sums.get(place, 0) + body["tokens"]
    return sums


def test_a_worker_that_is_stopped_is_set_aside_and_comes_back(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=12)
    whole = run_virtual(spec, text)
    freeze = Freeze("worker-3", whole.swarm.num_events // 2, for_s=60.0)
    seen = run_virtual(spec, text, freezes=(freeze,))
    assert_unharmed(seen, whole, freeze)
    assert states(seen, "worker-3") == ["active", "aside", "joining", "syncing", "serving"]
    [(worker, at, _, aside)] = [report for report in seen.reports if report[3].get("state") == "aside"]
    assert (worker, aside["by"]) == ("worker-3", "worker-2")
    assert 4.0 <= aside["silent_s"] < 8.0
    assert "silent for" in aside["reason"]
    done_at = max(at for _, at, kind, _ in seen.reports if kind == "round")
    assert done_at < at + 1.0, "the others waited for the one that was set aside"


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize(("worker", "schedule"), [("worker-1", "sync"), ("worker-3", "async")])
def test_who_comes_back_is_tried_with_one_micro_batch(text: Corpus, worker: str, schedule: str) -> None:
    spec = tiny_spec(text, replicas=2, steps=18, schedule=schedule, eval_every=0, micro_batches=4)
    slow = {f"worker-{number}": 2e-4 for number in range(6)}
    whole = run_virtual(spec, text, speeds=slow)
    seen = run_virtual(spec, text, freezes=(Freeze(worker, whole.swarm.num_events // 4, for_s=7.0),), speeds=slow)
    assert "aside" in states(seen, worker)
    back_at = max(at for name, at, kind, body in seen.reports if name == worker and body.get("state") == "warming")
    counts = [
        body["tokens"] // spec.tokens_per_micro_batch
        for name, at, kind, body in seen.reports
        if kind == "work" and name == worker and at > back_at
    ]
    tries = 1 + (spec.window + 1) * spec.is_async
    first = next(number for number, count in enumerate(counts) if count)
    assert counts[first] == 1, counts
    assert all(count <= 1 for count in counts[: first + 1])
    assert len(counts) > first + tries + 1
    assert min(counts[first + tries : -1]) >= 3, counts


def draw(rng: random.Random, whole: Observed) -> Freeze:
    assert whole.swarm is not None
    worker = f"worker-{rng.randrange(len(whole.swarm.seats))}"
    return Freeze(worker, rng.randrange(1, whole.swarm.num_events), rng.choice([0.01, 1.0, 5.0, 6.5, 30.0, 2000.0]))


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize(("replicas", "cases"), [(2, 12), (3, 6)])
def test_a_worker_that_is_stopped_at_a_drawn_moment_costs_nothing(text: Corpus, replicas: int, cases: int) -> None:
    spec = tiny_spec(text, replicas=replicas, steps=8)
    whole = run_virtual(spec, text)
    rng = random.Random(drawn_seed())
    tokens = spec.num_micro_batches * spec.tokens_per_micro_batch
    for _ in range(cases):
        freezes = tuple(draw(rng, whole) for _ in range(rng.choice([1, 1, 2, 3])))
        seen = run_virtual(spec, text, freezes=freezes)
        assert_unharmed(seen, whole, freezes)
        assert all(count <= tokens for count in counted(seen).values()), freezes
        assert not [state for name, state in seen.of_kind("state") if state["state"] == "dead"]


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("changes", CIRCUMSTANCES[1:], ids=["async", "DiLoCo"])
def test_replicas_agree_whoever_is_stopped(text: Corpus, changes: dict[str, Any]) -> None:
    spec = tiny_spec(text, replicas=2, steps=10, **changes)
    whole = run_virtual(spec, text)
    rng = random.Random(drawn_seed())
    for _ in range(6):
        freezes = tuple(draw(rng, whole) for _ in range(rng.choice([1, 2])))
        seen = run_virtual(spec, text, freezes=freezes)
        assert sorted(seen.losses) == list(range(10)), f"{freezes}: rounds are missing, the run stalled"
        assert all(len(digests) == 1 for digests in seen.digests().values()), f"{freezes}: replicas diverged"
        assert {seat.machine.desk.state for seat in seen.swarm.seats.values()} == {"serving"}, freezes


def test_the_only_worker_of_a_stage_is_waited_for(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=1, steps=8)
    whole = run_virtual(spec, text)
    freeze = Freeze("worker-1", whole.swarm.num_events // 2, for_s=300.0)
    seen = run_virtual(spec, text, freezes=(freeze,))
    assert_unharmed(seen, whole, freeze)
    assert states(seen, "worker-1") == ["active", "serving"]


def test_a_worker_that_is_slow_is_not_silent(text: Corpus) -> None:
    """One of a twentieth of the speed, over a slow link, has a long way to an answer, and is in every round for all that."""
    spec = tiny_spec(text, replicas=2, steps=8)
    seen = run_virtual(spec, text, speeds={"worker-3": 1e-6}, links=Links("0.01mbit", latency_ms=500))
    assert seen.swarm.now > 100.0
    assert not [body for _, body in seen.of_kind("state") if body["state"] == "aside"]


def test_how_long_is_too_long_follows_from_the_rounds(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=10, eval_every=0)
    slow = {f"worker-{number}": 1e-5 for number in range(6)}
    whole = run_virtual(spec, text, speeds=slow)
    ends = sorted({body["round"]: at for _, at, kind, body in whole.reports if kind == "round"}.items())
    longest = max(after - before for (_, before), (_, after) in itertools.pairwise(ends))
    assert longest > 10.0
    freeze = Freeze("worker-3", whole.swarm.num_events * 3 // 4, for_s=100 * longest)
    seen = run_virtual(spec, text, speeds=slow, freezes=(freeze,))
    assert_unharmed(seen, whole, freeze)
    [aside] = [body for _, body in seen.of_kind("state") if body["state"] == "aside"]
    assert 2.5 * longest < aside["silent_s"] < 6 * longest


@pytest.mark.parametrize("round_", [1, 2])
def test_who_falls_silent_after_the_first_round_is_not_waited_for_long(text: Corpus, round_: int) -> None:
    spec = tiny_spec(text, replicas=2, steps=6, eval_every=0)
    slow = {f"worker-{number}": 1e-5 for number in range(6)}
    whole = run_virtual(spec, text, speeds=slow)
    first = min(at for _, at, kind, body in whole.reports if kind == "round")
    frozen: list[float] = []

    def stop(swarm: VirtualSwarm) -> None:
        if not frozen and all(seat.machine.desk.round >= round_ for seat in swarm.seats.values()):
            swarm._freeze(Freeze("worker-3", 0, for_s=1000 * first))
            frozen.append(swarm.now)

    seen = run_virtual(spec, text, speeds=slow, on_event=stop)
    assert_unharmed(seen, whole, round_)
    [aside] = [body for _, body in seen.of_kind("state") if body["state"] == "aside"]
    assert first > 4.0, "a round is so short that the least patience is what counts"
    assert 2.5 * first < aside["silent_s"] < 20 * first


def test_where_no_round_is_undisturbed_it_follows_from_those_that_are_not(text: Corpus) -> None:
    """worker-5 dies and comes back in each round, and then worker-3, of the same stage, stands still."""
    spec = tiny_spec(text, replicas=3, steps=16, eval_every=0, checkpoint_every=1000)
    frozen: list[float] = []
    killed: set[int] = set()

    def disturb(swarm: VirtualSwarm) -> None:
        watched, victim = swarm.seats.get("worker-4"), swarm.seats.get("worker-5")
        if watched is None or frozen:
            return
        round_ = watched.machine.desk.round
        if round_ >= 9:
            swarm._freeze(Freeze("worker-3", 0, for_s=400.0))
            frozen.append(swarm.now)
        elif round_ not in killed and victim is not None and victim.machine.desk.state == "active":
            killed.add(round_)
            swarm._kill(Kill("worker-5", 0, 1e-4))

    seen = run_virtual(spec, text, on_event=disturb)
    assert len(killed) >= 4
    assert frozen
    [aside] = [body for worker, body in seen.of_kind("state") if worker == "worker-3" and body["state"] == "aside"]
    assert 4.0 <= aside["silent_s"] < 60.0
    assert sorted(seen.losses) == list(range(16))
    assert all(len(digests) == 1 for digests in seen.digests().values())


def test_who_is_stopped_again_and_again_waits_longer_each_time(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=40, eval_every=0, checkpoint_every=1000, epoch_rounds=10)
    slow = {f"worker-{number}": 1e-4 for number in range(6)}
    rounds = [4]

    def stop_it_again(swarm: VirtualSwarm) -> None:
        seat = swarm.seats.get("worker-1")
        if (
            len(rounds) <= 3
            and seat is not None
            and seat.machine.desk.state == "active"
            and seat.machine.desk.round >= rounds[-1]
        ):
            swarm._freeze(Freeze("worker-1", 0, for_s=12.0))
            rounds.append(seat.machine.desk.round + 2)

    seen = run_virtual(spec, text, speeds=slow, on_event=stop_it_again)
    told = [(at, body["state"]) for worker, at, kind, body in seen.reports if kind == "state" and worker == "worker-1"]
    asides = [at for at, state in told if state == "aside"]
    returns = [at for at, state in told if state == "joining"]
    assert len(asides) == len(returns) == 3
    away = [back - gone for gone, back in zip(asides, returns, strict=True)]
    assert away[0] < 8.0 < away[1] < 20.0 < away[2] < 60.0, away
    assert states(seen, "worker-1")[-1] == "serving"
    assert all(len(digests) == 1 for digests in seen.digests().values())
    assert sorted(seen.losses) == list(range(40))


def test_who_answers_but_gets_nothing_done_is_set_aside_as_well(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=12)
    whole = run_virtual(spec, text)

    def hang(swarm: VirtualSwarm) -> None:
        """From its tenth micro-batch or so on, arithmetic of worker-3's first process takes for ever."""
        seat = swarm.seats.get("worker-3")
        if swarm.num_events == whole.swarm.num_events // 2 and seat is not None:
            seat.seconds = lambda task: 1e9  # type: ignore[method-assign]

    seen = run_virtual(spec, text, on_event=hang)
    assert_unharmed(seen, whole, "hung")
    [aside] = [body for _, body in seen.of_kind("state") if body["state"] == "aside"]
    assert "gets nothing done" in aside["reason"]
    assert states(seen, "worker-3") == ["active", "aside", "joining", "syncing", "warming", "active", "serving"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"in_flight": 1}, {"in_flight": 3}, {"schedule": "async", "in_flight": 3}],
    ids=["sync", "sync, one", "sync, three", "async"],
)
def test_what_waits_for_a_silent_worker_is_bounded(text: Corpus, changes: dict[str, Any]) -> None:
    """Nobody can take over from worker-1, and worker-0 goes on sending as long as it may."""
    spec = tiny_spec(text, replicas=1, steps=10, micro_batches=4, **changes)
    undisturbed = run_virtual(spec, text)
    freeze = Freeze("worker-1", undisturbed.swarm.num_events // 2, for_s=500.0)
    waiting: list[int] = []

    def look(swarm: VirtualSwarm) -> None:
        head = swarm.seats["worker-0"].machine.desk
        waiting.append(sum(len(state.sent_to.keys() - state.accepted) for state in head.rounds.values()))

    seen = run_virtual(spec, text, freezes=(freeze,), on_event=look)
    assert sorted(seen.losses) == list(range(10))
    assert max(waiting) == spec.max_in_flight
    if not spec.is_async:  # how many are under way changes no sum
        assert undisturbed.losses == run_virtual(tiny_spec(text, replicas=1, steps=10, micro_batches=4), text).losses
