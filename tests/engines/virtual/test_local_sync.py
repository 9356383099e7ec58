"""`DiLoCo` and `SliceSync`: replicas step on their own, exchange beside it, and have in common what they should, to the bit."""

import dataclasses
import itertools
import random
from collections import defaultdict
from typing import Any

import pytest
import torch

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.learning.local_sync import LocalSync, is_exchanged
from pluralis_lab.learning.optimizers import build_optimizer, learning_rate
from pluralis_lab.learning.reference import whole_model
from pluralis_lab.links import Links
from pluralis_lab.parts import GPT, AdamW, Dense, DiLoCo, FullSync, SliceSync, Subspace, Sync
from pluralis_lab.spec import RunSpec, worker_name
from pluralis_lab.worker import Send
from pluralis_lab.worker.messages import Displacement
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.poison import Poisoner

SLOW = Links("0.5mbit", 20)
RULES: dict[str, Sync] = {
    "diloco": DiLoCo(inner_steps=3),
    "diloco that waits": DiLoCo(inner_steps=3, overlap=False),
    "slices": SliceSync(fraction=0.4, every=2),
}


def local_spec(corpus: Corpus, rule: Sync, **changes: object) -> RunSpec:
    fields = {"sync": rule, "boundary": Dense(), "optimizer": AdamW(lr=3e-3), "steps": 11, "replicas": 2, **changes}
    return tiny_spec(corpus, **fields)


def one_process(spec: RunSpec, corpus: Corpus, merges: dict[int, dict[int, int]]) -> list[float]:
    """Train every replica's model in one plain loop, exchanging where `merges` (by stage) says. Returns the rounds' losses."""
    vocab, replicas = corpus.info().vocab, spec.replicas
    models = [whole_model(spec, vocab) for _ in range(replicas)]
    optimizers = [[build_optimizer(stage, spec.optimizer) for stage in model] for model in models]
    syncs = [[LocalSync(spec, n, list(stage.parameters())) for n, stage in enumerate(model)] for model in models]
    scale = spec.num_micro_batches * spec.tokens_per_micro_batch
    counted: dict[tuple[int, int], int] = defaultdict(int)
    under_way: dict[int, tuple[int, dict, dict]] = {}
    losses = []
    for round_ in range(spec.steps):
        total, here = 0.0, defaultdict(int)
        for index in range(spec.num_micro_batches):
            who = [(index + stage * round_) % replicas for stage in range(spec.stages)]
            ids = torch.as_tensor(corpus.micro_batch(spec.seed, round_, index, spec.micro_batch_size).inputs).to(torch.int64)
            x = ids[:, :-1]
            for stage, replica in enumerate(who):
                x = models[replica][stage](x)
                here[stage, replica] += 1
            loss = models[who[-1]][-1].loss_sum(x, ids[:, 1:])
            (loss / scale).backward()
            total += loss.item()
        losses.append(total / scale)
        for stage in range(spec.stages):
            for replica in range(replicas):
                optimizer, count = optimizers[replica][stage], here[stage, replica]
                if count:
                    for parameter in models[replica][stage].parameters():
                        assert parameter.grad is not None
                        parameter.grad *= spec.num_micro_batches / count
                    optimizer.lr = learning_rate(spec.optimizer, round_)
                    optimizer.step()
                    optimizer.zero_grad()
                counted[stage, replica] += count
            for again in range(2):
                if stage in under_way and merges[stage][under_way[stage][0]] == round_ + 1:
                    begun, sent, counts = under_way.pop(stage)
                    for replica in range(replicas):
                        syncs[replica][stage].merge(begun, sent, counts, is_late=begun != round_)
                if not again and is_exchanged(spec, round_):
                    sync = [syncs[replica][stage] for replica in range(replicas)]
                    sent = {str(r): one.read(round_, one.displace(round_)) for r, one in enumerate(sync)}
                    under_way[stage] = (round_, sent, {str(r): counted.pop((stage, r)) for r in range(replicas)})
    return losses


@pytest.mark.parametrize("links", [Links(), SLOW], ids=["fast", "slow"])
@pytest.mark.parametrize("rule", list(RULES))
def test_it_is_what_one_process_computes_for_all_replicas(text: Corpus, rule: str, links: Links) -> None:
    spec = local_spec(text, RULES[rule])
    seen = run_virtual(spec, text, links=links)
    merges: dict[int, dict[int, int]] = defaultdict(dict)
    for worker, body in seen.of_kind("exchange"):
        stage = int(worker.removeprefix("worker-")) // spec.replicas
        at = body["round"] + 1 + body["late"]
        assert merges[stage].setdefault(body["round"], at) == at, "replicas merged at different rounds"
    assert [seen.losses[number] for number in range(spec.steps)] == pytest.approx(one_process(spec, text, merges), abs=1e-12)
    assert all(len(digests) == 1 for digests in seen.digests().values()), "replicas diverged"
    assert_same_weights(seen)


def assert_same_weights(seen: Observed) -> None:
    """After the last exchange, which is over all weights, replicas hold the same model, and it is the anchor."""
    assert seen.swarm is not None
    by_stage: dict[int, list[torch.Tensor]] = defaultdict(list)
    for seat in seen.swarm.seats.values():
        assert seat.compute.local_sync is not None
        flat = torch.cat([parameter.detach().flatten() for parameter in seat.compute.parameters])
        assert torch.equal(flat, seat.compute.local_sync.anchor)
        by_stage[seat.compute.index].append(flat)
    assert all(torch.equal(first, other) for first, *others in by_stage.values() for other in others)


def test_an_exchange_takes_more_rounds_on_a_slow_link_and_training_does_not_wait_for_it(text: Corpus) -> None:
    model = GPT(n_layer=3, n_head=2, d_model=48, context=16)
    changes = {"model": model, "boundary": Subspace(8, "same"), "batch_size": 8, "micro_batches": 1, "eval_every": 0}
    seen = run_virtual(local_spec(text, DiLoCo(inner_steps=12), steps=108, **changes), text, links=Links("2mbit", 0))
    bodies = [body for worker, body in seen.of_kind("exchange") if worker == "worker-0"]
    assert (bodies[0]["late"], bodies[0]["waited"]) == (1, True)
    first, late = bodies[0]["round"], bodies[-2]
    assert 3 <= late["late"] <= 12
    assert not late["waited"]
    assert bodies[-1]["late"] == 0
    ends = [at for worker, at, kind, body in seen.reports if kind == "work" and worker == "worker-0"]
    rounds = [after - before for before, after in itertools.pairwise([0.0, *ends])]
    assert rounds[first + 1] > 4 * min(rounds), "an exchange is no slower than a round: this shows nothing"
    assert max(rounds[late["round"] + 1 : late["round"] + 1 + late["late"]]) < 3 * min(rounds), "it held a round up"


@pytest.mark.parametrize("rule", ["diloco", "slices"])
def test_all_work_is_receipted_with_the_displacement_it_came_with(text: Corpus, rule: str) -> None:
    spec = local_spec(text, RULES[rule])
    seen = run_virtual(spec, text)
    signed = defaultdict(set)
    for line in seen.statements:
        body = line["body"]
        if body["kind"] == "contribution":
            signed[body["stage"], body["round"]] |= {index for item in body["items"] for index in item["indices"]}
            assert body["worker"] != body["signer"]
            assert body["norm"] > 0
    everything = set(range(spec.num_micro_batches))
    assert {key: found for key, found in signed.items() if found != everything} == {}
    assert len(signed) == spec.stages * spec.steps
    last = [body for _, body in seen.of_kind("work") if body["round"] == spec.steps - 1]
    assert {body["settled"] for body in last} == {spec.steps}


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("schedule", ["sync", "async"])
@pytest.mark.parametrize("rule", list(RULES))
def test_a_killed_replica_costs_its_own_steps_and_nothing_else(text: Corpus, rule: str, schedule: str) -> None:
    rng = random.Random(drawn_seed())
    links = SLOW if rule == "diloco that waits" else Links()
    for replicas, cases in ((2, 3), (3, 3)):
        spec = local_spec(text, RULES[rule], replicas=replicas, schedule=schedule)
        whole = run_virtual(spec, text, links=links)
        assert whole.swarm is not None
        for _ in range(cases):
            moments = [rng.randrange(1, whole.swarm.num_events) for _ in range(rng.choice([1, 1, 2]))]
            kills = [
                Kill(worker_name(rng.randrange(spec.num_workers)), at, rng.choice([None, 0.001, 0.02, 0.5]), rng.random() < 0.7)
                for at in moments
            ]
            if len({int(kill.worker.removeprefix("worker-")) // replicas for kill in kills}) < len(kills) and replicas == 2:
                continue  # a stage of two cannot lose both
            seen = run_virtual(spec, text, kills=tuple(kills), links=links)
            assert sorted(seen.losses) == sorted(whole.losses), f"{kills}: rounds are missing, the run stalled"
            assert all(len(digests) == 1 for digests in seen.digests().values()), f"{kills}: replicas diverged"
            assert_same_weights(seen)
            assert not seen.expelled(), kills


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("rule", list(RULES))
def test_a_stopped_run_goes_on_to_the_bit(text: Corpus, rule: str) -> None:
    """Each replica from its own checkpoint, also with an exchange under way and work that no exchange has covered."""
    spec = local_spec(text, RULES[rule], checkpoint_every=1)
    whole = run_virtual(spec, text)
    for version in range(3, 10):
        states = {worker: state for (worker, at), state in whole.stored.items() if at == version}
        if len(states) < spec.num_workers:
            continue
        rest = run_virtual(spec, text, start=(version, states))
        assert rest.losses == {number: loss for number, loss in whole.losses.items() if number >= version}
        assert rest.digests() == whole.digests()


def test_with_one_round_between_and_one_micro_batch_each_diloco_is_plain_averaging(text: Corpus) -> None:
    """An outer rate of one without momentum, after every round, without overlap: the mean of the replicas' own steps."""
    spec = local_spec(text, DiLoCo(inner_steps=1, outer_lr=1.0, outer_momentum=0.0, overlap=False))
    seen = run_virtual(spec, text)
    full = run_virtual(spec.replace(sync=FullSync()), text)
    assert seen.losses[0] == full.losses[0]
    assert seen.losses[10] == pytest.approx(full.losses[10], rel=0.05)
    assert_same_weights(seen)


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("payload", ["bfloat16", "int8"])
@pytest.mark.parametrize("rule", [FullSync, DiLoCo, SliceSync])
def test_a_smaller_payload_keeps_replicas_in_step_and_learns(text: Corpus, rule: type, payload: str) -> None:
    every = {FullSync: {}, DiLoCo: {"inner_steps": 3}, SliceSync: {"fraction": 0.4, "every": 2}}[rule]
    small = run_virtual(local_spec(text, rule(payload=payload, **every)), text)
    same = run_virtual(local_spec(text, rule(**every)), text)
    assert all(len(digests) == 1 for digests in small.digests().values()), "replicas diverged"
    assert small.losses[10] == pytest.approx(same.losses[10], rel=0.02)
    assert small.losses != same.losses
    assert sync_bytes(small) < {"bfloat16": 0.5, "int8": 0.4}[payload] * sync_bytes(same)


def sync_bytes(seen: Observed) -> int:
    return sum(link.get("sync_bytes", 0) for _, body in seen.of_kind("work") for link in body["links"].values())


def test_replicas_that_do_not_wait_repeat_to_the_bit_with_deaths(text: Corpus) -> None:
    spec = local_spec(text, RULES["slices"])
    kills = (Kill("worker-2", 150, restart_s=0.01), Kill("worker-1", 400, restart_s=None))
    first, second = run_virtual(spec, text, kills=kills), run_virtual(spec, text, kills=kills)
    assert first.reports == second.reports
    assert first.statements == second.statements


def test_a_replica_alone_goes_on_by_itself(text: Corpus) -> None:
    for rule in RULES.values():
        seen = run_virtual(local_spec(text, rule, replicas=1), text)
        assert sorted(seen.losses) == list(range(11))
        assert_same_weights(seen)


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("rule", ["full", *RULES])
def test_what_is_kept_from_one_replica_it_gets_from_another(text: Corpus, rule: str) -> None:
    spec = local_spec(text, RULES.get(rule, FullSync()), stages=2, replicas=3, micro_batches=6, batch_size=6, eval_every=0)
    whole = run_virtual(spec, text)
    liar = Poisoner("worker-3", 0.0, round_=0, told=frozenset({"worker-4"}), says_nothing=True)
    seen = run_virtual(spec, text, on_event=liar)
    assert liar.lied_at, "nothing was kept from it"
    assert sorted(seen.losses) == sorted(whole.losses), "the run stalled"
    assert all(len(digests) == 1 for digests in seen.digests().values()), "replicas diverged"
    assert not seen.expelled()


@pytest.mark.parametrize("what", ["nothing in its name", "less of its work", "another wish"])
def test_nobody_tells_another_displacement_in_its_authors_name(text: Corpus, what: str) -> None:
    """Who relays a displacement and changes what is not in the bytes is expelled, and its author keeps its work."""
    spec = local_spec(text, RULES["diloco"], replicas=3, micro_batches=6, batch_size=6, steps=9, eval_every=0)
    whole = run_virtual(spec, text)
    told: list[str] = []

    def meddle(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send, liar = swarm.network.send, swarm.seats["worker-3"]

            def speak(name: str, by: Any, effect: Send) -> None:
                message = effect.message
                if by is not liar and isinstance(message, Displacement) and message.worker == "worker-4" and not told:
                    false = {
                        "nothing in its name": {"items": ()},
                        "less of its work": {"items": message.items[1:]},
                        "another wish": {"wish": 2},
                    }[what]
                    told.append(effect.target)
                    send("worker-3", liar, Send("worker-5", dataclasses.replace(message, **false)))
                send(name, by, effect)

            swarm.network.send = speak  # type: ignore[method-assign]

    seen = run_virtual(spec, text, on_event=meddle)
    assert told
    assert list(seen.expelled()) == ["worker-3"]
    assert "sealed" in seen.expelled()["worker-3"]
    assert sorted(seen.losses) == sorted(whole.losses)
    receipted = {line["body"]["round"] for line in seen.statements if line["body"]["worker"] == "worker-4"}
    assert receipted == set(range(9))
    assert all(len(digests) == 1 for digests in seen.digests().values())
