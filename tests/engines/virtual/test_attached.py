"""Workers that the spec does not name come to a run that is under way: they share the work, and nothing else changes."""

import random
from collections import Counter
from typing import Any

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Attachment, Freeze, Kill, VirtualSwarm
from pluralis_lab.links import Links
from pluralis_lab.parts import AdamW, Dense, DiLoCo, SliceSync
from pluralis_lab.spec import RunSpec, worker_name
from pluralis_lab.worker import Peer, Received
from pluralis_lab.worker import messages as wire
from pluralis_lab.worker.flow import Flow
from pluralis_lab.worker.membership import Membership
from pluralis_lab.worker.round_state import RoundState
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.test_hostile_peers import inject
from tests.engines.virtual.test_killed_workers import assert_unharmed

RULES: dict[str, dict[str, Any]] = {
    "sync": {},
    "sync, bounded": {"in_flight": 1, "micro_batches": 4},
    "async": {"schedule": "async"},
    "diloco": {"sync": DiLoCo(inner_steps=3), "boundary": Dense(), "optimizer": AdamW()},
    "slices": {"sync": SliceSync(fraction=0.4, every=2), "boundary": Dense(), "optimizer": AdamW()},
    "slices, async": {
        "sync": SliceSync(fraction=0.4, every=2),
        "schedule": "async",
        "boundary": Dense(),
        "optimizer": AdamW(),
    },
}


def served(seen: Observed, round_: int) -> Counter[str]:
    """Return the micro-batches that each worker counted in `round_`."""
    tokens = seen.swarm.spec.tokens_per_micro_batch
    return Counter({worker: body["tokens"] // tokens for worker, body in seen.of_kind("work") if body["round"] == round_})


def assert_each_counted_once(seen: Observed, what: object) -> None:
    """In every round each stage counted all micro-batches, whoever was there."""
    spec = seen.swarm.spec
    for round_ in range(spec.steps):
        by_stage: Counter[int] = Counter()
        for worker, count in served(seen, round_).items():
            by_stage[seen.swarm.seats[worker].compute.index] += count
        assert by_stage == dict.fromkeys(range(spec.stages), spec.num_micro_batches), f"{what}: round {round_} {by_stage}"


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_worker_that_comes_later_shares_the_work_and_the_losses_are_the_same(text: Corpus, stage: int) -> None:
    spec = tiny_spec(text, replicas=2, micro_batches=3, batch_size=6, steps=6)
    whole = run_virtual(spec, text)
    seen = run_virtual(spec, text, attachments=(Attachment("worker-6", stage, whole.swarm.num_events // 4),))
    assert_unharmed(seen, whole, stage)
    assert_each_counted_once(seen, stage)
    counts = served(seen, 5)
    assert [counts[name] for name in (worker_name(2 * stage), worker_name(2 * stage + 1), "worker-6")] == [2, 2, 2]
    assert seen.swarm.seats["worker-6"].machine.desk.me.replica == 2


@pytest.mark.parametrize("links", [Links(), Links("2mbit", latency_ms=5)], ids=["at once", "slow links"])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_whoever_comes_has_work_in_the_first_round_that_it_takes_part_in(text: Corpus, stage: int, links: Links) -> None:
    spec = tiny_spec(text, replicas=2, micro_batches=3, batch_size=6, steps=6)
    seen = run_virtual(spec, text, links=links, attachments=(Attachment("worker-6", stage, 150),))
    states = [body for worker, body in seen.of_kind("state") if worker == "worker-6"]
    phases = [state["state"] for state in states]
    assert list(dict.fromkeys(phases)) == ["joining", "syncing", "warming", "active", "serving"]
    begins = next(state["round"] for state in states if state["state"] == "warming")
    assert begins > 0
    assert served(seen, begins)["worker-6"] == 2
    # What it was counted for while it was warming is receipted as everybody's is, by another.
    signed = {
        index
        for body in (line["body"] for line in seen.statements)
        if (body["kind"], body.get("worker"), body.get("round")) == ("contribution", "worker-6", begins)
        for item in body["items"]
        for index in item["indices"]
        if body["signer"] != "worker-6"
    }
    assert len(signed) == 2


def test_who_was_dealt_work_and_is_let_in_a_round_later_delays_nothing(text: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(text, replicas=2, micro_batches=3, batch_size=6, steps=6)
    whole = run_virtual(spec, text)
    late: dict[str, tuple[wire.Join, int]] = {}
    asked, awaited, dealt_again = set(), [], []
    on_join, await_next, deal_again = Membership.on_join, Membership.await_next, Flow.deal_again

    def hear_late(self: Membership, source: str, message: wire.Join) -> None:
        if self.desk.me.name in asked:
            on_join(self, source, message)
        else:
            late[self.desk.me.name] = (message, self.desk.round)

    def await_too_early(self: Membership, state: RoundState) -> None:
        await_next(self, state)
        for peer in self.desk.roster.stage(self.desk.me.stage + 1):
            if peer.since is None:
                awaited.append(self.desk.me.name)
                self.desk.roster.await_from(peer.name, self.desk.dealt_from(1, state.round))

    def note(self: Flow, holder: Peer, *, is_dead: bool = False) -> None:
        assert not is_dead
        dealt_again.append(self.desk.me.name)
        deal_again(self, holder)

    def ask(swarm: VirtualSwarm) -> None:
        for name, (message, round_) in list(late.items()):
            if swarm.seats[name].machine.desk.round > round_:
                asked.add(name)
                del late[name]
                inject(swarm, "worker-6", name, message)

    monkeypatch.setattr(Membership, "on_join", hear_late)
    monkeypatch.setattr(Membership, "await_next", await_too_early)
    monkeypatch.setattr(Flow, "deal_again", note)
    seen = run_virtual(spec, text, attachments=(Attachment("worker-6", 1, 100),), on_event=ask)
    assert_unharmed(seen, whole, "late")
    assert_each_counted_once(seen, "late")
    assert served(seen, 5)["worker-6"] == 2
    assert set(dealt_again) == set(awaited) == {"worker-0", "worker-1"}


@pytest.mark.parametrize(("micro_batches", "in_flight", "head", "later"), [(4, 2, 1, 350), (2, 1, 0, 320)])
def test_what_waits_for_a_joiner_keeps_nobody_from_taking_over_a_silent_head(
    text: Corpus, micro_batches: int, in_flight: int, head: int, later: int
) -> None:
    """At several moments, as the one that matters is not seen from outside: when work of a later round waits for the joiner."""
    changes = {"micro_batches": micro_batches, "batch_size": 2 * micro_batches, "in_flight": in_flight, "eval_every": 0}
    spec = tiny_spec(text, replicas=2, steps=12, schedule="async", **changes)
    for comes in range(440, 840, 50):
        freezes = (Freeze(worker_name(head), comes + later, 1000.0),)
        seen = run_virtual(spec, text, attachments=(Attachment("worker-6", 1, comes),), freezes=freezes)
        assert sorted(seen.losses) == list(range(12)), comes
        assert all(len(digests) == 1 for digests in seen.digests().values())


@pytest.mark.parametrize("is_old", [False, True], ids=["the last step", "a step before the other replica came"])
def test_one_replica_alone_cannot_have_the_stage_before_wait_for_somebody(text: Corpus, is_old: bool) -> None:
    spec = tiny_spec(text, replicas=2, micro_batches=3, batch_size=6, steps=6)
    named = []

    def name_it(swarm: VirtualSwarm) -> None:
        head = swarm.seats["worker-0"].machine
        joiner = head.desk.roster.get("worker-6")
        if joiner is not None and joiner.since is None and head.desk.round > 0:
            round_ = 0 if is_old else head.desk.round - 1
            step = wire.Committed(round_, (("worker-2", "d"),), (("worker-6", joiner.incarnation, False),))
            assert head.handle(Received("worker-2", step)) == []
            assert head.desk.roster.get("worker-6").since is None
            named.append(step.round)

    kills = (Kill("worker-3", 30, 0.01),) if is_old else ()
    seen = run_virtual(
        spec, text, attachments=(Attachment("worker-6", 1, 350 if is_old else 150),), kills=kills, on_event=name_it
    )
    assert named
    assert_unharmed(seen, run_virtual(spec, text), "named")
    assert_each_counted_once(seen, "named")


def test_a_run_of_one_worker_a_stage_grows_to_four(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=1, micro_batches=4, batch_size=8, steps=8)
    whole = run_virtual(spec, text)
    moments = range(5, whole.swarm.num_events // 2, 5)
    attached = tuple(Attachment(worker_name(3 + n), n % 3, moments[n]) for n in range(9))
    seen = run_virtual(spec, text, attachments=attached)
    assert_unharmed(seen, whole, "grown")
    assert_each_counted_once(seen, "grown")
    assert set(served(seen, 7).values()) == {1}


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("rule", RULES)
def test_under_every_rule_all_replicas_end_alike_and_each_micro_batch_counts_once(text: Corpus, rule: str) -> None:
    spec = tiny_spec(text, **{"replicas": 2, "steps": 14, "eval_every": 0, **RULES[rule]})
    attached = (Attachment("worker-6", 1, 40), Attachment("worker-7", 0, 90), Attachment("worker-8", 2, 200))
    seen = run_virtual(spec, text, attachments=attached)
    assert sorted(seen.losses) == list(range(14))
    assert all(len(digests) == 1 for digests in seen.digests().values())
    assert_each_counted_once(seen, rule)
    assert all(served(seen, 13)[attachment.worker] > 0 for attachment in attached)
    again = run_virtual(spec, text, attachments=attached)
    assert again.losses == seen.losses
    assert again.digests() == seen.digests()


def drawn(rng: random.Random, spec: RunSpec, num_events: int) -> dict[str, Any]:
    """Draw one or two attachments, and kills of them or of others, that leave each stage a worker."""
    count = rng.choice([1, 1, 2])
    attached = tuple(
        Attachment(worker_name(spec.num_workers + n), rng.randrange(spec.stages), rng.randrange(1, num_events))
        for n in range(count)
    )
    kills, spared = [], {rng.randrange(spec.replicas) + stage * spec.replicas for stage in range(spec.stages)}
    for _ in range(rng.choice([0, 1, 2])):
        number = rng.choice([n for n in range(spec.num_workers + count) if n not in spared])
        moment = rng.choice([rng.randrange(1, num_events), attached[0].after_events + rng.randrange(80)])
        kills.append(Kill(worker_name(number), moment, rng.choice([None, 0.001, 0.02, 0.5]), rng.random() < 0.7))
    return {"attachments": attached, "kills": tuple(kills)}


def drawn_cases(text: Corpus, cases: int) -> None:
    rng = random.Random(drawn_seed())
    specs = []
    for stages, replicas in ((3, 2), (1, 2), (2, 3), (3, 1)):
        changes = {"boundary": Dense(), "checkpoint_every": rng.choice([1, 4]), "in_flight": rng.choice([None, 1])}
        spec = tiny_spec(text, stages=stages, replicas=replicas, steps=5, **changes)
        specs.append((spec, run_virtual(spec, text)))
    for case in range(cases):
        spec, whole = specs[case % len(specs)]
        what = drawn(rng, spec, whole.swarm.num_events)
        links = rng.choice([Links(), Links("1mbit", 30)])
        assert_unharmed(
            run_virtual(spec, text, links=links, **what), whole, (spec.stages, spec.replicas, spec.in_flight, links, what)
        )


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_whoever_comes_and_whoever_dies_at_a_drawn_moment_costs_nothing(text: Corpus) -> None:
    drawn_cases(text, 24)


@pytest.mark.deep
@pytest.mark.timeout(1200)
def test_many_comings_and_deaths_cost_nothing(text: Corpus) -> None:
    drawn_cases(text, 600)


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "sync"])
def test_comings_and_deaths_under_the_other_rules(text: Corpus, rule: str) -> None:
    rng = random.Random(drawn_seed())
    spec = tiny_spec(text, **{"replicas": 2, "steps": 8, "eval_every": 0, **RULES[rule]})
    num_events = run_virtual(spec, text).swarm.num_events
    for _ in range(5):
        what = drawn(rng, spec, num_events)
        seen = run_virtual(spec, text, **what)
        assert sorted(seen.losses) == list(range(8)), f"{what}: the run stalled"
        assert all(len(digests) == 1 for digests in seen.digests().values()), f"{what}: replicas diverged"
        assert {seat.machine.desk.state for seat in seen.swarm.seats.values()} == {"serving"}, what
