"""Replicas that add up a part for all (`FullSync(transport="butterfly")`): the same run as over gather, for fewer bytes."""

import dataclasses
import random
from typing import Any

import pytest
import torch

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.learning.payload import Payload, pack
from pluralis_lab.links import Links
from pluralis_lab.parts import Dense, FullSync, Subspace
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import Send
from pluralis_lab.worker.encoding import traffic_class
from pluralis_lab.worker.messages import FetchPiece, Piece, Reduced
from tests.engines.conftest import Observed, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.test_attached import assert_each_counted_once
from tests.engines.virtual.test_attached import drawn as drawn_comings
from tests.engines.virtual.test_killed_together import assert_survives, draw
from tests.engines.virtual.test_killed_workers import assert_unharmed

BUTTERFLY = FullSync(transport="butterfly")


def both(text: Corpus, **changes: Any) -> tuple[Observed, Observed]:
    """Return a run over gather and the same one over butterfly."""
    spec = tiny_spec(text, **changes)
    return run_virtual(spec, text), run_virtual(spec.replace(sync=BUTTERFLY), text)


@pytest.mark.parametrize(("stages", "replicas", "micro_batches"), [(3, 1, 2), (3, 2, 2), (1, 3, 4), (2, 4, 4), (2, 5, 4)])
def test_a_run_is_to_the_bit_what_it_is_over_gather(text: Corpus, stages: int, replicas: int, micro_batches: int) -> None:
    boundary = Dense() if stages == 1 else Subspace(4, "same")
    gather, butterfly = both(text, stages=stages, replicas=replicas, micro_batches=micro_batches, boundary=boundary)
    assert butterfly.losses == gather.losses
    assert butterfly.validations == gather.validations
    assert butterfly.digests() == gather.digests()
    assert all(torch.equal(gradient, gather.gradients[place]) for place, gradient in butterfly.gradients.items())
    assert butterfly.gradients.keys() == gather.gradients.keys()
    assert_each_counted_once(butterfly, (stages, replicas))


def test_norms_agreements_and_receipts_are_those_of_gather(text: Corpus) -> None:
    gather, butterfly = both(text, replicas=3, micro_batches=4, batch_size=8)
    work = {(worker, body["round"]): body["observed"] for worker, body in gather.of_kind("work")}
    for worker, body in butterfly.of_kind("work"):
        for name, (norm, agreement) in body["observed"].items():
            expected = work[worker, body["round"]][name]
            assert (norm, agreement) == pytest.approx(expected, rel=1e-9)

    def told(seen: Observed) -> set[tuple[Any, ...]]:
        rows = ((line["body"], len(line["body"]["items"])) for line in seen.statements)
        return {(row["kind"], row["round"], row["worker"], row["signer"], count) for row, count in rows}

    assert told(butterfly) == told(gather)


def test_also_where_stages_do_not_wait_where_the_subspace_turns_and_where_numbers_are_rounded(text: Corpus) -> None:
    gather, butterfly = both(text, replicas=2, boundary=Subspace(4, "same", refresh_every=3), steps=8)
    assert butterfly.losses == gather.losses
    assert butterfly.digests() == gather.digests()
    gather, butterfly = both(text, replicas=2, schedule="async", steps=8)  # a round trip more is another delay
    assert sorted(butterfly.losses) == sorted(gather.losses)
    assert all(len(digests) == 1 for digests in butterfly.digests().values())
    gather, butterfly = both(text, replicas=3, micro_batches=4, dtype="float32", boundary=Subspace(4), steps=8)
    for payload in ("bfloat16", "int8"):
        spec = gather.swarm.spec.replace(sync=FullSync(transport="butterfly", payload=payload))
        rounded = run_virtual(spec, text)
        assert rounded.losses != butterfly.losses
        assert [rounded.losses[number] for number in range(8)] == pytest.approx(
            [butterfly.losses[number] for number in range(8)], rel=0.01
        )
        assert all(len(digests) == 1 for digests in rounded.digests().values())


def sent_for_sync(spec: RunSpec, text: Corpus) -> int:
    """Return the bytes of weight gradients and their sums that all workers sent."""
    total = 0

    def listen(swarm: VirtualSwarm) -> None:
        nonlocal total
        if swarm.num_events == 0:
            send = swarm.network.send

            def note(name: str, seat: Any, effect: Send) -> None:
                nonlocal total
                if traffic_class(effect.message) == "sync":
                    total += effect.message.payload.size_bytes
                send(name, seat, effect)

            swarm.network.send = note  # type: ignore[method-assign]

    run_virtual(spec, text, on_event=listen)
    return total


def test_more_replicas_send_no_more_each(text: Corpus) -> None:
    spec = tiny_spec(text, stages=1, boundary=Dense(), replicas=8, micro_batches=8, batch_size=8, steps=2, eval_every=0)
    gather, butterfly = sent_for_sync(spec, text), sent_for_sync(spec.replace(sync=BUTTERFLY), text)
    # R − 1 gradients each, against (R − 1) / R twice; more for the hashes, and for the pieces that are drawn to be checked.
    assert butterfly / gather < 1.5 * 2 / 8


def specs(text: Corpus, rng: random.Random, **changes: Any) -> list[tuple[RunSpec, Observed]]:
    found = []
    for stages, replicas in ((3, 3), (2, 3), (1, 3), (3, 2)):
        boundary = Dense() if stages == 1 else Subspace(4, "same")
        fields = {"steps": 4, "boundary": boundary, "checkpoint_every": rng.choice([1, 4]), **changes}
        spec = tiny_spec(text, stages=stages, replicas=replicas, sync=BUTTERFLY, **fields)
        found.append((spec, run_virtual(spec, text)))
    return found


def drawn_kills(text: Corpus, cases: int) -> None:
    rng = random.Random(drawn_seed())
    found = specs(text, rng)
    for case in range(cases):
        spec, whole = found[case % len(found)]
        assert_survives(spec, text, whole, draw(rng, spec, whole.swarm.num_events))


def drawn_comings_and_deaths(text: Corpus, cases: int) -> None:
    rng = random.Random(drawn_seed())
    found = specs(text, rng, steps=5)
    for case in range(cases):
        spec, whole = found[case % len(found)]
        what = drawn_comings(rng, spec, whole.swarm.num_events)
        links = rng.choice([Links(), Links("1mbit", 30)])
        assert_unharmed(run_virtual(spec, text, links=links, **what), whole, (spec.stages, spec.replicas, links, what))


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_workers_killed_together_cost_nothing(text: Corpus) -> None:
    drawn_kills(text, 12)


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_whoever_comes_and_whoever_dies_costs_nothing(text: Corpus) -> None:
    drawn_comings_and_deaths(text, 12)


@pytest.mark.deep
@pytest.mark.timeout(1800)
def test_many_deaths_and_comings_cost_nothing(text: Corpus) -> None:
    drawn_kills(text, 400)
    drawn_comings_and_deaths(text, 400)


@pytest.mark.drawn("deaths at drawn moments", keep=3)
def test_deaths_where_stages_do_not_wait(text: Corpus) -> None:
    rng = random.Random(drawn_seed())
    spec = tiny_spec(text, replicas=3, steps=6, eval_every=0, schedule="async", sync=BUTTERFLY, micro_batches=4)
    whole = run_virtual(spec, text)
    for _ in range(8):
        kills = draw(rng, spec, whole.swarm.num_events)
        seen = run_virtual(spec, text, kills=kills)
        assert sorted(seen.losses) == list(range(6)), f"{kills}: the run stalled"
        assert all(len(digests) == 1 for digests in seen.digests().values()), kills
        assert not seen.expelled(), kills


class Liar:
    """Has worker-1 (stage 0) send false messages, as `forge` makes them of true ones, to some of the others."""

    def __init__(self, forge: Any) -> None:
        self.forge, self.told = forge, 0

    def __call__(self, swarm: VirtualSwarm) -> None:
        if swarm.num_events > 0:
            return
        send = swarm.network.send

        def speak(name: str, seat: Any, effect: Send) -> None:
            if name == "worker-1" and (message := self.forge(effect.target, effect.message)) is not None:
                self.told += 1
                effect = Send(effect.target, message)
            send(name, seat, effect)

        swarm.network.send = speak  # type: ignore[method-assign]


def falsified(payload: Payload) -> Payload:
    """Return the payload with other numbers in its first array."""
    arrays = list(payload.tensors().items())
    return pack([(arrays[0][0], arrays[0][1] + 1.0), *arrays[1:]])


def test_two_who_were_told_different_sums_find_out_who_lied_and_take_the_true_one(text: Corpus) -> None:
    spec = tiny_spec(text, stages=1, boundary=Dense(), replicas=4, micro_batches=4, steps=4, eval_every=0, sync=BUTTERFLY)
    whole = run_virtual(spec, text)
    liar = Liar(
        lambda target, message: (
            dataclasses.replace(message, payload=falsified(message.payload))
            if isinstance(message, Reduced) and message.round == 1 and target == "worker-2"
            else None
        )
    )
    seen = run_virtual(spec, text, on_event=liar)
    assert liar.told > 0
    assert list(seen.expelled()) == ["worker-1"]
    assert "sent a false sum of chunk" in seen.expelled()["worker-1"]
    assert seen.losses == pytest.approx(whole.losses, abs=1e-12)
    assert all(len(digests) == 1 for digests in seen.digests().values())


@pytest.mark.parametrize("after", [0, 3, 8, 15, 25, 40])
def test_who_lies_to_one_and_dies_leaves_nobody_apart(text: Corpus, after: int) -> None:
    spec = tiny_spec(text, stages=1, boundary=Dense(), replicas=4, micro_batches=4, steps=4, eval_every=0, sync=BUTTERFLY)

    def forge(target: str, message: Any) -> Any:
        if isinstance(message, Reduced) and message.round == 1 and target == "worker-2":
            return dataclasses.replace(message, payload=falsified(message.payload))
        return None

    liar, lied_at = Liar(forge), [0]

    def lie_and_die(swarm: VirtualSwarm) -> None:
        liar(swarm)
        if liar.told and not lied_at[0]:
            lied_at[0] = swarm.num_events
        if lied_at[0] and swarm.num_events == lied_at[0] + after and "worker-1" in swarm.seats:
            swarm._kill(Kill("worker-1", 0, None, after % 2 == 0))

    seen = run_virtual(spec, text, on_event=lie_and_die)
    assert liar.told > 0
    assert sorted(seen.losses) == list(range(4)), "the run stalled"
    assert all(len(digests) == 1 for digests in seen.digests().values())
    assert set(seen.expelled()) <= {"worker-1"}


def test_a_false_sum_told_to_all_is_found_by_whoever_draws_its_chunk(text: Corpus) -> None:
    spec = tiny_spec(text, stages=1, boundary=Dense(), replicas=4, micro_batches=4, steps=6, eval_every=0, sync=BUTTERFLY)
    liar = Liar(
        lambda target, message: (
            dataclasses.replace(message, payload=falsified(message.payload)) if isinstance(message, Reduced) else None
        )
    )
    seen = run_virtual(spec, text, on_event=liar)
    assert list(seen.expelled()) == ["worker-1"]
    assert sorted(seen.losses) == list(range(6))


def test_a_chunk_that_was_not_signed_is_found_at_once(text: Corpus) -> None:
    spec = tiny_spec(text, stages=1, boundary=Dense(), replicas=3, micro_batches=4, steps=4, eval_every=0, sync=BUTTERFLY)
    whole = run_virtual(spec, text)
    liar = Liar(
        lambda target, message: (
            dataclasses.replace(message, payload=falsified(message.payload))
            if isinstance(message, Piece) and message.round == 2
            else None
        )
    )
    seen = run_virtual(spec, text, on_event=liar)
    assert "than it signed" in seen.expelled()["worker-1"]
    assert seen.losses == pytest.approx(whole.losses, abs=1e-12)


def test_every_round_each_replica_has_a_chunk_of_somebody_else_checked(text: Corpus) -> None:
    spec = tiny_spec(text, stages=1, boundary=Dense(), replicas=3, micro_batches=4, steps=5, eval_every=0, sync=BUTTERFLY)
    asked: set[tuple[str, int, int]] = set()

    def forge(target: str, message: Any) -> None:
        if isinstance(message, FetchPiece):
            asked.add(("worker-1", message.round, message.chunk))

    run_virtual(spec, text, on_event=Liar(forge))
    assert {round_ for _, round_, _ in asked} == set(range(5))
    assert len({chunk for _, _, chunk in asked}) > 1
