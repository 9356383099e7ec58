"""Whoever is killed, whenever: the run goes on, with the same losses, and no micro-batch is counted twice or lost."""

import random
from dataclasses import replace
from typing import Any

import pytest

from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.shape import RunShape, WorkerSeat
from pluralis_lab.contributions.tally import tally_epoch
from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.signers import SeedSigner
from pluralis_lab.engines.virtual import Attachment, Freeze, Kill, VirtualSwarm
from pluralis_lab.engines.virtual.seat import Seat
from pluralis_lab.learning import tasks
from pluralis_lab.links import Links
from pluralis_lab.models.cost import stage_flops_per_token
from pluralis_lab.parts import GPT, AdamW, Dense, DiLoCo, SliceSync
from pluralis_lab.spec import RunSpec, worker_name
from pluralis_lab.worker import Peer
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec


def assert_unharmed(seen: Observed, whole: Observed, what: object, *, liars: frozenset[str] = frozenset()) -> None:
    """The same losses and weights as without the kill, and everybody who is there serves; none but `liars` were expelled."""
    assert sorted(seen.losses) == sorted(whole.losses), f"{what}: rounds are missing, the run stalled"
    for number, loss in whole.losses.items():
        assert seen.losses[number] == pytest.approx(loss, abs=1e-12, rel=0), f"{what}: another loss in round {number}"
    assert all(len(digests) == 1 for digests in seen.digests().values()), f"{what}: replicas diverged"
    assert seen.expelled().keys() == liars, f"{what}: {seen.expelled()}"
    states = {name: seat.machine.desk.state for name, seat in seen.swarm.seats.items()}
    assert set(states.values()) == {"serving"}, f"{what}: {states}"
    assert sorted(seen.validations) == sorted(whole.validations), f"{what}: a validation is missing"


def draw(rng: random.Random, num_workers: int, num_events: int) -> Kill:
    restart_s = rng.choice([None, 0.001, 0.02, 0.5])
    return Kill(f"worker-{rng.randrange(num_workers)}", rng.randrange(1, num_events), restart_s, rng.random() < 0.7)


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize(("replicas", "cases", "in_flight"), [(2, 24, None), (3, 8, None), (2, 16, 1)])
def test_a_worker_killed_at_a_drawn_moment_costs_nothing(text: Corpus, replicas: int, cases: int, in_flight: int | None) -> None:
    spec = tiny_spec(text, replicas=replicas, in_flight=in_flight)
    whole = run_virtual(spec, text)
    rng = random.Random(drawn_seed())
    for _ in range(cases):
        kill = draw(rng, spec.num_workers, whole.swarm.num_events)
        assert_unharmed(run_virtual(spec, text, kills=(kill,)), whole, kill)


@pytest.mark.deep
@pytest.mark.parametrize("in_flight", [None, 1])
@pytest.mark.parametrize("worker", range(6))
def test_every_moment_to_be_killed_costs_nothing(text: Corpus, worker: int, in_flight: int | None) -> None:
    spec = tiny_spec(text, replicas=2, steps=3, in_flight=in_flight)
    whole = run_virtual(spec, text)
    for moment in range(1, whole.swarm.num_events):
        for restart_s in (None, 0.02):
            kill = Kill(f"worker-{worker}", moment, restart_s, loses_wire=moment % 3 != 0)
            assert_unharmed(run_virtual(spec, text, kills=(kill,)), whole, kill)


RULES: dict[str, dict[str, Any]] = {
    "sync": {},
    "sync, bounded": {"in_flight": 1},
    "async": {"schedule": "async"},
    "diloco": {"sync": DiLoCo(inner_steps=3), "boundary": Dense(), "optimizer": AdamW()},
    "slices, async": {
        "sync": SliceSync(fraction=0.4, every=2),
        "schedule": "async",
        "boundary": Dense(),
        "optimizer": AdamW(),
    },
}


@pytest.mark.parametrize("rule", ["sync", "sync, bounded", "diloco"])
def test_a_head_that_dies_while_the_next_stages_lanes_change_costs_no_honest_replica_its_place(text: Corpus, rule: str) -> None:
    model = GPT(n_layer=2, n_head=2, d_model=16, context=16)
    spec = tiny_spec(text, stages=2, replicas=2, steps=5, model=model, **RULES[rule])
    # The next stage is slow, so that heads begin a round long before it has made the step that changes its lanes.
    machines = {"links": Links("80mbit", 20), "speeds": {"worker-2": 1e-4, "worker-3": 4e-5}}
    whole = run_virtual(spec, text, **machines)
    assert len({body["tokens"] for worker, body in whole.of_kind("work") if worker == "worker-2"}) > 1, "lanes changed"
    for moment in range(140, 280, 10):
        kill = Kill("worker-1", moment, restart_s=1.0, loses_wire=False)
        seen = run_virtual(spec, text, kills=(kill,), **machines)
        assert sorted(seen.losses) == sorted(whole.losses), f"{kill}: the run stalled"
        assert not seen.expelled(), kill


def some_trouble(rng: random.Random, text: Corpus) -> tuple[RunSpec, dict[str, Any]]:
    """Return a run of unequal machines on slow links, to which some come and of which some die, but never all of a stage."""
    stages, replicas, micro_batches = rng.choice([2, 2, 3]), rng.choice([2, 2, 3]), rng.choice([2, 3, 4])
    model = GPT(n_layer=stages, n_head=2, d_model=16, context=16)
    shape = {"stages": stages, "replicas": replicas, "micro_batches": micro_batches, "batch_size": 2 * micro_batches}
    spec = tiny_spec(text, steps=8, model=model, **shape, **RULES[rng.choice(list(RULES))])
    about = 12 * spec.steps * spec.num_workers * micro_batches
    comers = range(spec.num_workers, spec.num_workers + rng.choice([0, 1, 1, 2]))
    come = {number: Attachment(worker_name(number), rng.randrange(stages), rng.randrange(20, about // 2)) for number in comers}
    dying: dict[int, list[Kill | Freeze]] = {}
    for number in rng.sample(range(comers.stop), rng.choice([1, 2, 2, 3])):
        troubled = dying.setdefault(come[number].stage if number in come else number // replicas, [])
        if len(troubled) + 1 < replicas:
            name, moment = worker_name(number), rng.randrange(20, about)
            if rng.random() < 0.3:
                troubled.append(Freeze(name, moment, for_s=rng.choice([1.0, 10.0, 60.0])))  # of which some are set aside
            else:
                troubled.append(Kill(name, moment, rng.choice([None, 0.02, 1.0]), loses_wire=rng.random() < 0.3))
    far = [rng.sample(range(comers.stop), 2) for _ in range(rng.choice([0, 0, 1, 4]))]
    slow = tuple((worker_name(one), worker_name(other), "20mbit", rng.choice([100, 1000, 4000])) for one, other in far)
    trouble = {
        "links": replace(rng.choice([Links("80mbit", 20), Links("20mbit", 5), Links("200mbit", 50)]), pairs=slow),
        "speeds": {worker_name(n): rng.choice([1e-3, 1e-4, 6e-5, 4e-5]) for n in range(comers.stop)},
        "attachments": tuple(come.values()),
        "kills": tuple(one for troubled in dying.values() for one in troubled if isinstance(one, Kill)),
        "freezes": tuple(one for troubled in dying.values() for one in troubled if isinstance(one, Freeze)),
    }
    return spec, trouble


class WhoDeals:
    """Compares, when a worker first deals micro-batches of a round, what it knows of the next stage with what is so there.

    Whoever deals must know the same lanes and the same workers as those that work there, or two who deal could give one
    micro-batch to two of them.
    """

    def __init__(self) -> None:
        self.compared = 0
        self.differing: list[str] = []
        self._seen: set[tuple[str, int, int]] = set()

    def __call__(self, swarm: VirtualSwarm) -> None:
        for name, seat in swarm.seats.items():
            desk = seat.machine.desk
            for round_, state in desk.rounds.items():
                if state.sent_to and desk.state == "active" and (name, seat.incarnation, round_) not in self._seen:
                    self._seen.add((name, seat.incarnation, round_))
                    self._compare(swarm, name, round_)

    def _compare(self, swarm: VirtualSwarm, name: str, round_: int) -> None:
        desk = swarm.seats[name].machine.desk
        stage = desk.me.stage + 1
        for other, seat in swarm.seats.items():
            there = seat.machine.desk
            if there.me.stage != stage or there.state != "active" or there.dealt_from(stage, there.round - 1) < round_:
                continue
            self.compared += 1
            known, is_so = (
                (of.roster.lanes(stage).dealt(round_), names_of_live(swarm, of.roster.serving(stage, round_)))
                for of in (desk, there)
            )
            if known != is_so:
                self.differing.append(f"{name} deals round {round_} by {known}, at {other} it is {is_so}")


def names_of_live(swarm: VirtualSwarm, peers: list[Peer]) -> set[str]:
    """Return who of them is there: that one is not, others can have heard already, or not yet."""
    live = {(name, seat.incarnation) for name, seat in swarm.seats.items()}
    return {peer.name for peer in peers if (peer.name, peer.incarnation) in live}


def assert_trouble_harms_nobody(text: Corpus, cases: int) -> None:
    rng = random.Random(drawn_seed())
    compared = 0
    for number in range(cases):
        spec, trouble = some_trouble(rng, text)
        deals = WhoDeals()
        seen = run_virtual(spec, text, on_event=deals, **trouble)
        what = f"case {number}: {spec.sync}, {spec.schedule}, {trouble}"
        assert sorted(seen.losses) == list(range(spec.steps)), f"{what}: the run stalled"
        assert not seen.expelled(), f"{what}: {seen.expelled()}"
        assert not deals.differing, f"{what}: {deals.differing}"
        compared += deals.compared
    assert compared > 10 * cases


def test_unequal_machines_on_slow_links_that_come_and_die_expel_nobody(text: Corpus) -> None:
    assert_trouble_harms_nobody(text, 12)


@pytest.mark.deep
@pytest.mark.timeout(1200)
def test_many_unequal_machines_on_slow_links_that_come_and_die_expel_nobody(text: Corpus) -> None:
    assert_trouble_harms_nobody(text, 400)


def test_who_was_let_in_is_dealt_to_by_who_has_not_met_it(text: Corpus) -> None:
    """Its greeting takes 4 s to a head that has made several rounds by then; or never comes, as it dies."""
    spec = tiny_spec(text, stages=2, replicas=2, steps=12)
    machines = {"links": Links("80mbit", 20, pairs=(("worker-1", "worker-4", "80mbit", 4000),))}
    whole = run_virtual(spec, text, **machines)
    come = (Attachment("worker-4", 1, whole.swarm.num_events // 4),)
    kept: list[int] = []

    deals = WhoDeals()

    def look(swarm: VirtualSwarm) -> None:
        deals(swarm)
        desk = swarm.seats["worker-1"].machine.desk
        comer = desk.roster.get("worker-4")
        is_unmet = comer is not None and not comer.is_met
        if is_unmet and any(state.sent.keys() - state.sent_to.keys() for state in desk.rounds.values()):
            kept.append(swarm.num_events)

    seen = run_virtual(spec, text, attachments=come, on_event=look, **machines)
    assert kept, "the moment that this test is about never came"
    assert deals.compared
    assert not deals.differing, deals.differing
    assert_unharmed(seen, whole, "the joiner lives")
    for moment in kept[:: max(1, len(kept) // 4)]:
        for restart_s in (None, 0.02):
            kill = Kill("worker-4", moment, restart_s, loses_wire=restart_s is None)
            assert_unharmed(run_virtual(spec, text, attachments=come, kills=(kill,), **machines), whole, kill)


def test_who_joins_knows_who_was_let_in_before_it_met_them(text: Corpus) -> None:
    """A comer and one that comes back are far from each other: either can have the state before the other's greeting."""
    spec = tiny_spec(text, stages=2, replicas=2, steps=10)
    machines = {"links": Links("80mbit", 20, pairs=(("worker-2", "worker-4", "80mbit", 2000),))}
    whole = run_virtual(spec, text, **machines)
    first = whole.swarm.num_events // 4
    for moment in range(first, 2 * first, first // 6):
        deals = WhoDeals()
        trouble = {"attachments": (Attachment("worker-4", 1, first),), "kills": (Kill("worker-2", moment, 0.02),)}
        assert_unharmed(run_virtual(spec, text, on_event=deals, **trouble, **machines), whole, trouble)
        assert deals.compared
        assert not deals.differing, deals.differing


def test_a_joiner_hears_what_was_counted_of_its_first_round_before_its_greeting_came(
    text: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `async` a mate far away counts for that round before it has met the joiner, and meets it in a long step before."""
    seconds, told_late = Seat.seconds, []

    def slow_once(seat: Seat, task: tasks.Task) -> float:
        if isinstance(task, tasks.Apply) and seat.machine.desk.me.name == "worker-4" and not told_late:
            told_late.append(task.round)
            return seconds(seat, task) + 5.0
        return seconds(seat, task)

    monkeypatch.setattr(Seat, "seconds", slow_once)
    spec = tiny_spec(text, stages=2, replicas=2, steps=12, eval_every=0, schedule="async", micro_batches=3, batch_size=6)
    links = Links("80mbit", 20, pairs=(("worker-4", "worker-5", "80mbit", 2000),))
    for comes, gap in ((150, 82), (180, 74), (180, 82)):
        told_late.clear()
        come = (Attachment("worker-4", 1, comes), Attachment("worker-5", 1, comes + gap))
        seen = run_virtual(spec, text, links=links, attachments=come)
        assert told_late
        assert sorted(seen.losses) == list(range(12)), "the run stalled"
        assert not seen.expelled()


def test_who_comes_waits_for_nobody_that_died_before(text: Corpus) -> None:
    """Who sends it the state has not heard of that yet; or a step that is told again names who was let in with it, and died."""
    spec = tiny_spec(text, stages=2, replicas=2, steps=8, eval_every=0)
    machines = {"links": Links("80mbit", 50)}
    whole = run_virtual(spec, text, **machines)
    for moment in range(40, whole.swarm.num_events, whole.swarm.num_events // 3):
        trouble = {
            "kills": (Kill("worker-3", moment, None, loses_wire=False),),
            "attachments": (Attachment("worker-4", 0, moment + 1),),
        }
        assert_unharmed(run_virtual(spec, text, **trouble, **machines), whole, trouble)

    machines = {"links": Links("80mbit", 20), "speeds": {worker_name(number): 1e-5 for number in range(6)}}
    whole, comer = run_virtual(spec, text, **machines), Attachment("worker-4", 1, 60)

    let_in: list[int] = []

    def look(swarm: VirtualSwarm) -> None:
        if "worker-4" in swarm.seats["worker-2"].machine.membership._admitted:
            let_in.append(swarm.num_events)

    run_virtual(spec, text, attachments=(comer,), on_event=look, **machines)
    for gap in (1, 9, 21):
        trouble = {
            "attachments": (comer, Attachment("worker-5", 0, let_in[0] + gap)),
            "kills": (Kill("worker-4", let_in[0], None, loses_wire=False),),
        }
        assert_unharmed(run_virtual(spec, text, **trouble, **machines), whole, trouble)


def test_one_worker_after_the_other_is_killed_and_joins_again(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=30)
    whole = run_virtual(spec, text)
    step = whole.swarm.num_events // 7
    kills = tuple(Kill(f"worker-{n}", (n + 1) * step, restart_s=0.005) for n in range(6))
    seen = run_virtual(spec, text, kills=kills)
    assert_unharmed(seen, whole, kills)
    assert len(seen.swarm.seats) == 6
    assert all(seat.incarnation == 1 for seat in seen.swarm.seats.values())


def shape_of(spec: RunSpec) -> RunShape:
    workers = [WorkerSeat(f"worker-{n}", n // spec.replicas, n % spec.replicas, f"owner-{n}") for n in range(spec.num_workers)]
    return RunShape(
        run_id="ab" * 32,
        stages=spec.stages,
        replicas=spec.replicas,
        rounds_per_epoch=spec.epoch_rounds,
        num_micro_batches=spec.num_micro_batches,
        tokens_per_micro_batch=spec.tokens_per_micro_batch,
        stage_flops=tuple(stage_flops_per_token(spec, stage, 256) for stage in range(spec.stages)),
        workers=tuple(workers),
        participants={f"owner-{n}": f"0x{n + 1:040x}" for n in range(spec.num_workers)},
        chain_id=0,
        ledger="0x" + "00" * 20,
        emission=spec.emission,
    )


def authorisations_of(shape: RunShape) -> list[dict[str, Any]]:
    signer = SeedSigner(0)
    lines = []
    for n, seat in enumerate(shape.workers):
        key = HotKey.from_seed(bytes([n])).address
        typed = authorisation_typed_data(shape.run_id, seat.name, key, 0, shape.ledger)
        address = signer.address(seat.participant)
        lines.append(
            {
                "run": shape.run_id,
                "worker": seat.name,
                "participant": seat.participant,
                "address": address,
                "key": key,
                "signature": signer.sign(seat.participant, typed),
            }
        )
    return lines


def test_a_killed_worker_keeps_its_receipts_and_the_survivor_computes_its_stage_alone(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=1, epoch_rounds=1, micro_batches=4, batch_size=8, eval_every=0)
    whole = run_virtual(spec, text)
    victim, survivor = "worker-2", "worker-3"
    shape = shape_of(spec)
    signer = SeedSigner(0)
    shape = replace(shape, participants={name: signer.address(name) for name in shape.participants})
    authorisations = authorisations_of(shape)
    kept = 0
    for moment in range(20, whole.swarm.num_events, 9):
        seen = run_virtual(spec, text, kills=(Kill(victim, moment, restart_s=None, loses_wire=False),))
        assert_unharmed(seen, whole, moment)
        table = tally_epoch(shape, 0, seen.statements, authorisations)
        assert table.findings == ()
        assert table.incomplete == ()
        rows = {row.worker: row for row in table.rows}
        total = spec.num_micro_batches * spec.tokens_per_micro_batch
        for stage in range(3):
            both = [rows[f"worker-{2 * stage}"], rows[f"worker-{2 * stage + 1}"]]
            if stage < 2:
                assert sum(row.forward_tokens for row in both) == total
            if stage > 0:
                assert sum(row.backward_tokens for row in both) == total
        step = next(body for worker, body in seen.of_kind("work") if worker == survivor)
        if victim not in step["observed"] and rows[victim].forward_tokens:
            kept += 1
            assert rows[victim].contribution_tokens == 0
            assert rows[survivor].forward_tokens < total
    assert kept >= 3, "no moment was found at which the victim had forward receipts and no part in the step"
