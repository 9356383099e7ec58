"""A worker that is asked to leave goes when nobody needs it: nothing is computed twice, lost, or waited for."""

import random
from typing import Any

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Attachment, Departure, Kill, VirtualSwarm
from pluralis_lab.spec import RunSpec, worker_name
from pluralis_lab.worker import Send
from pluralis_lab.worker.messages import Committed
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.test_attached import RULES, served

WORK = ("forward", "backward", "contribution", "local_step")


def left_at(seen: Observed, worker: str) -> float:
    return next(at for name, at, kind, body in seen.reports if (name, kind, body.get("reason")) == (worker, "state", "left"))


def assert_left_in_order(seen: Observed, worker: str) -> None:
    """It went, no micro-batch was sent again, and each piece of its work is receipted by whoever had the use of it."""
    assert worker not in seen.swarm.seats
    assert not seen.of_kind("reroute")
    at = left_at(seen, worker)
    counted = [body["round"] for name, time, kind, body in seen.reports if (name, kind) == (worker, "work") and body["tokens"]]
    assert all(time <= at for name, time, *_ in seen.reports if name == worker)
    receipted = {(line["body"]["kind"], line["body"]["round"]) for line in seen.statements if line["body"]["worker"] == worker}
    assert {round_ for kind, round_ in receipted if kind in ("contribution", "local_step")} == set(counted)


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_losses_are_the_same_and_nothing_is_computed_twice(text: Corpus, stage: int) -> None:
    spec = tiny_spec(text, replicas=3, steps=10, micro_batches=2, batch_size=4)
    whole = run_virtual(spec, text)
    worker = worker_name(3 * stage + 1)
    seen = run_virtual(spec, text, departures=(Departure(worker, whole.swarm.num_events // 3),))
    assert seen.losses == pytest.approx(whole.losses, abs=1e-12)
    assert_left_in_order(seen, worker)
    counts = served(seen, 9)
    assert counts[worker] == 0
    assert sum(counts[worker_name(3 * stage + n)] for n in range(3)) == spec.num_micro_batches
    assert_counted_once(seen)


def assert_counted_once(seen: Observed) -> None:
    """As `assert_each_counted_once`, with those who have left."""
    spec = seen.swarm.spec
    for round_ in range(spec.steps):
        totals = [0] * spec.stages
        for worker, count in served(seen, round_).items():
            totals[seen.swarm._grid[worker][0]] += count
        assert totals == [spec.num_micro_batches] * spec.stages, f"round {round_}: {totals}"


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("rule", RULES)
def test_it_leaves_under_every_rule(text: Corpus, rule: str) -> None:
    spec = tiny_spec(text, **{"replicas": 2, "steps": 24, "eval_every": 0, **RULES[rule]})
    seen = run_virtual(spec, text, departures=(Departure("worker-3", 60), Departure("worker-0", 200)))
    assert sorted(seen.losses) == list(range(24))
    for worker in ("worker-0", "worker-3"):
        assert_left_in_order(seen, worker)
    assert_counted_once(seen)
    again = run_virtual(spec, text, departures=(Departure("worker-3", 60), Departure("worker-0", 200)))
    assert again.losses == seen.losses


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("rule", RULES)
def test_who_is_asked_late_leaves_as_well(text: Corpus, rule: str) -> None:
    spec = tiny_spec(text, **{"replicas": 2, "steps": 12, "eval_every": 0, **RULES[rule]})
    whole = run_virtual(spec, text).swarm.num_events
    for share in (0.8, 0.9, 0.95, 0.97):
        seen = run_virtual(spec, text, departures=(Departure("worker-3", int(share * whole)),))
        assert "worker-3" not in seen.swarm.seats, f"asked at {share:.0%}, it stayed"
        assert sorted(seen.losses) == list(range(12))
        assert_counted_once(seen)


def test_the_last_of_a_stage_stays_until_another_is_in(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=1, steps=10)
    whole = run_virtual(spec, text)
    alone = run_virtual(spec, text, departures=(Departure("worker-1", 30),))
    assert "worker-1" in alone.swarm.seats
    assert alone.losses == pytest.approx(whole.losses, abs=1e-12)
    relieved = run_virtual(spec, text, departures=(Departure("worker-1", 30),), attachments=(Attachment("worker-3", 1, 100),))
    assert_left_in_order(relieved, "worker-1")
    assert relieved.losses == pytest.approx(whole.losses, abs=1e-12)
    assert served(relieved, 9)["worker-3"] == spec.num_micro_batches


def test_a_slot_that_was_left_and_is_filled_again_is_dealt_its_share(text: Corpus) -> None:
    """As after a worker was asked to leave in vain, and died: its next life is not taken for one that leaves."""
    spec = tiny_spec(text, replicas=2, steps=12)
    seen = run_virtual(spec, text, departures=(Departure("worker-3", 40),), kills=(Kill("worker-3", 60, restart_s=0.01),))
    if "worker-3" in seen.swarm.seats:
        assert served(seen, 11)["worker-3"] == served(seen, 11)["worker-2"]
    assert_counted_once(seen)


def drawn(rng: random.Random, spec: RunSpec, num_events: int) -> dict[str, Any]:
    """Draw who leaves, who comes and who dies, so that each stage keeps one that neither leaves nor dies."""
    safe = {spec.replicas * stage + rng.randrange(spec.replicas) for stage in range(spec.stages)}
    others = [worker_name(number) for number in range(spec.num_workers) if number not in safe]
    leavers = rng.sample(others, rng.randint(1, len(others)))
    moments = [rng.randrange(1, num_events) for _ in range(8)]
    return {
        "departures": tuple(Departure(name, moments[n % 8]) for n, name in enumerate(leavers)),
        "attachments": tuple(
            Attachment(worker_name(spec.num_workers + n), rng.randrange(spec.stages), moments[n]) for n in range(2)
        ),
        "kills": tuple(
            Kill(rng.choice(others), rng.randrange(1, num_events), rng.choice([0.01, 0.5]), rng.random() < 0.5)
            for _ in range(rng.randrange(3))
        ),
    }


def check_drawn(text: Corpus, seed: int) -> None:
    rng = random.Random(seed)
    rule = rng.choice(list(RULES))
    spec = tiny_spec(text, **{"replicas": rng.choice([2, 3]), "steps": 12, "eval_every": 0, **RULES[rule]})
    whole = run_virtual(spec, text)
    case = drawn(rng, spec, whole.swarm.num_events)
    try:
        seen = run_virtual(spec, text, **case)
        assert sorted(seen.losses) == list(range(12))
        if rule.startswith("sync"):
            assert seen.losses == pytest.approx(whole.losses, abs=1e-10)
        live = {name for name, seat in seen.swarm.seats.items() if seat.machine.desk.state == "serving"}
        assert {seen.swarm._grid[name][0] for name in live} == set(range(spec.stages))
        assert all(len(digests) == 1 for digests in seen.digests().values())
    except BaseException:
        print(f"seed {seed}, {rule}: {case}")
        raise


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_drawn_comings_goings_and_deaths_cost_nothing(text: Corpus) -> None:
    seed = drawn_seed()
    for n in range(2):
        check_drawn(text, seed + n)


@pytest.mark.deep
def test_many_comings_goings_and_deaths_cost_nothing(text: Corpus) -> None:
    seed = drawn_seed()
    for n in range(250):
        check_drawn(text, seed + n)


def test_who_was_not_told_of_a_step_by_those_that_did_not_know_it_yet_can_leave(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=16, eval_every=0)
    unheard: set[str] = set()

    def forget(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send = swarm.network.send

            def speak(name: str, seat: Any, effect: Send) -> None:
                message, joiner = effect.message, swarm.seats.get("worker-6")
                is_told = isinstance(message, Committed) and effect.target == "worker-6" and name in ("worker-0", "worker-1")
                if is_told and joiner is not None and message.round == joiner.machine.desk.me.since:
                    unheard.add(name)
                else:
                    send(name, seat, effect)

            swarm.network.send = speak  # type: ignore[method-assign]

    whole = run_virtual(spec, text)
    attachment, departure = Attachment("worker-6", 1, 150), Departure("worker-6", whole.swarm.num_events * 2 // 3)
    seen = run_virtual(spec, text, attachments=(attachment,), departures=(departure,), on_event=forget)
    assert unheard == {"worker-0", "worker-1"}
    assert sorted(seen.losses) == list(range(16))
    assert_left_in_order(seen, "worker-6")
