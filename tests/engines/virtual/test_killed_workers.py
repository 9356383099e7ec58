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
from pluralis_lab.engines.virtual import Kill
from pluralis_lab.models.cost import stage_flops_per_token
from pluralis_lab.spec import RunSpec
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec


def assert_unharmed(seen: Observed, whole: Observed, what: object) -> None:
    """The same losses and weights as without the kill, and everybody who is there serves."""
    assert sorted(seen.losses) == sorted(whole.losses), f"{what}: rounds are missing, the run stalled"
    for number, loss in whole.losses.items():
        assert seen.losses[number] == pytest.approx(loss, abs=1e-12, rel=0), f"{what}: another loss in round {number}"
    assert all(len(digests) == 1 for digests in seen.digests().values()), f"{what}: replicas diverged"
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
