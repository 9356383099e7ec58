"""A joiner gets its stage's state in chunks: what has come is not sent again when the sender dies, a false one is noticed."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load, save

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Attachment, Kill, VirtualSwarm
from pluralis_lab.learning import state_chunks, tasks
from pluralis_lab.links import Links
from pluralis_lab.parts import AdamW, Dense, DiLoCo
from pluralis_lab.worker import PeerLost, Send
from pluralis_lab.worker.download import AT_ONCE
from pluralis_lab.worker.messages import FetchState, StateChunk, StateOffer
from tests.engines.conftest import Observed, run_virtual, tiny_spec
from tests.engines.virtual.test_killed_workers import assert_unharmed

JOINER = "worker-9"
SLOW = Links("2mbit", latency_ms=5)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model's state in a hundred chunks."""
    monkeypatch.setattr(state_chunks, "CHUNK_BYTES", 1 << 9)


class Wire:
    """What joiners and those who send them the state say to each other; `change` may put another chunk in a chunk's place."""

    def __init__(self, change: Callable[[str, StateChunk], StateChunk] = lambda source, chunk: chunk) -> None:
        self.offers: list[tuple[str, StateOffer]] = []
        self.chunks: list[tuple[str, int]] = []
        self.under_way = self.most_under_way = 0
        self.moment_of: dict[int, int] = {}
        self._change = change

    def __call__(self, swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send = swarm.network.send

            def listen(name: str, seat: Any, effect: Send) -> None:
                send(name, seat, self.note(swarm, name, effect))

            swarm.network.send = listen  # type: ignore[method-assign]

    def note(self, swarm: VirtualSwarm, name: str, effect: Send) -> Send:
        message = effect.message
        if isinstance(message, StateOffer):
            self.offers.append((name, message))
        elif isinstance(message, FetchState):
            self.under_way += len(message.indices)
            self.most_under_way = max(self.most_under_way, self.under_way)
        elif isinstance(message, StateChunk):
            self.under_way -= 1
            self.chunks.append((name, message.index))
            self.moment_of[len(self.chunks)] = swarm.num_events
            return Send(effect.target, self._change(name, message))
        return effect


def joining(text: Corpus, wire: Wire, *, kills: tuple[Kill, ...] = (), **changes: Any) -> Observed:
    spec = tiny_spec(text, **{"replicas": 3, "micro_batches": 3, "batch_size": 6, "steps": 8, "eval_every": 0, **changes})
    return run_virtual(spec, text, attachments=(Attachment(JOINER, 1, 150),), links=SLOW, kills=kills, on_event=wire)


def test_a_state_comes_in_chunks_of_which_few_are_under_way(text: Corpus) -> None:
    wire = Wire()
    seen = joining(text, wire)
    assert_unharmed(seen, run_virtual(seen.swarm.spec, text), "downloaded")
    (offer,) = [message for _, message in wire.offers]
    count = state_chunks.num_chunks(offer.size_bytes)
    assert count > 2 * AT_ONCE
    assert sorted(index for _, index in wire.chunks) == list(range(count))
    assert wire.most_under_way <= AT_ONCE
    told = [body for worker, body in seen.of_kind("state") if worker == JOINER and body["state"] == "syncing"]
    assert [body["received_bytes"] for body in told] == sorted(body["received_bytes"] for body in told)
    assert len(told) == 10
    assert {body["size_bytes"] for body in told} == {offer.size_bytes}
    assert not seen.swarm.seats["worker-3"].machine.membership._offered, "nobody fetches the state any more"


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("after", [1, 40, 90])
def test_what_has_come_is_not_sent_again_when_the_sender_dies(text: Corpus, after: int) -> None:
    before = Wire()
    whole = joining(text, before)
    donor = before.offers[0][0]
    wire = Wire()
    seen = joining(text, wire, kills=(Kill(donor, before.moment_of[after], restart_s=None),))
    assert_unharmed(seen, run_virtual(whole.swarm.spec, text), after)
    assert len({source for source, _ in wire.offers}) == 2
    again = [index for index, times in Counter(index for _, index in wire.chunks).items() if times > 1]
    assert len(again) <= AT_ONCE, "more than what was under way was sent again"
    assert len(wire.chunks) <= len(before.chunks) + AT_ONCE


def test_replicas_that_train_locally_hold_other_states_and_only_equal_chunks_are_kept(text: Corpus) -> None:
    rule = {"sync": DiLoCo(inner_steps=3), "boundary": Dense(), "optimizer": AdamW()}
    before = Wire()
    joining(text, before, **rule)
    wire = Wire()
    seen = joining(text, wire, kills=(Kill(before.offers[0][0], before.moment_of[40], restart_s=None),), **rule)
    assert sorted(seen.losses) == list(range(8))
    assert all(len(digests) == 1 for digests in seen.digests().values())
    assert len({offer.digest for _, offer in wire.offers}) == 2


def test_who_sends_another_chunk_than_it_announced_is_expelled_and_the_next_replica_sends_the_rest(text: Corpus) -> None:
    liar: list[str] = []

    def change(source: str, chunk: StateChunk) -> StateChunk:
        if chunk.index == 50 and liar in ([], [source]):
            liar[:] = [source]
            return StateChunk(chunk.version, chunk.digest, chunk.index, chunk.data[:-1] + bytes([chunk.data[-1] ^ 1]))
        return chunk

    wire = Wire(change)
    seen = joining(text, wire)
    assert sorted(seen.losses) == list(range(8))
    (reason,) = {body["reason"] for worker, body in seen.of_kind("state") if worker == liar[0] and body["state"] == "dead"}
    assert reason.endswith("sent another chunk 50 of its state than it had announced")
    assert len({source for source, _ in wire.offers}) == 2
    assert all(len(digests) == 1 for digests in seen.digests().values())


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("weight/", float("nan"), "NaN, infinity or a number beyond"),
        ("exp_avg_sq", -1.0, "among its means of squares"),
        ("step", -1.0, "has made -1.0 steps"),
        ("sync/mark", -7.0, "where no replica can stand"),
    ],
)
def test_who_sends_a_state_that_no_training_leads_to_is_expelled_and_the_next_replica_sends_its_own(
    text: Corpus, name: str, value: float, reason: str
) -> None:
    liar: list[str] = []

    class Poisoned(Wire):
        def __call__(self, swarm: VirtualSwarm) -> None:
            if swarm.num_events == 0:
                for donor in ("worker-3", "worker-4", "worker-5"):
                    swarm.seats[donor].compute.run = lying(swarm, donor, swarm.seats[donor].compute.run)  # type: ignore[method-assign]
            super().__call__(swarm)

    def lying(swarm: VirtualSwarm, donor: str, run: Callable[[tasks.Task], tasks.Result]) -> Callable[[tasks.Task], tasks.Result]:
        def compute(task: tasks.Task) -> tasks.Result:
            done = run(task)
            is_sent = isinstance(task, tasks.Snapshot) and swarm.seats[donor].machine.membership._snapshot_for.get(task.version)
            if not is_sent or liar:
                return done
            assert isinstance(done, tasks.SnapshotDone)
            liar.append(donor)
            tensors = load(done.state)
            tensors[min(key for key in tensors if name in key)].view(-1)[-1] = value
            state = save(tensors)
            return tasks.SnapshotDone(done.version, state, hashlib.sha256(state).hexdigest())

        return compute

    rule: dict[str, Any] = {"boundary": Dense(), "optimizer": AdamW()}
    if name == "sync/mark":
        rule["sync"] = DiLoCo(inner_steps=3)
    wire = Poisoned()
    seen = joining(text, wire, **rule)
    assert sorted(seen.losses) == list(range(8))
    (why,) = {body["reason"] for worker, body in seen.of_kind("state") if worker == liar[0] and body["state"] == "dead"}
    assert reason in why
    assert len({source for source, _ in wire.offers}) == 2
    assert "active" in [body["state"] for worker, body in seen.of_kind("state") if worker == JOINER]
    assert all(len(digests) == 1 for digests in seen.digests().values())


def test_who_wants_chunks_that_the_state_has_not_is_expelled(text: Corpus) -> None:
    from pluralis_lab.worker import Received
    from pluralis_lab.worker.effects import Expel

    reasons: list[str] = []

    class Curious(Wire):
        def note(self, swarm: VirtualSwarm, name: str, effect: Send) -> Send:
            if isinstance(effect.message, FetchState) and not reasons:
                wanted = FetchState(effect.message.version, effect.message.digest, (2000,))
                effects = swarm.seats[effect.target].machine.handle(Received(name, wanted))
                reasons.extend(effect.reason for effect in effects if isinstance(effect, Expel))
            return super().note(swarm, name, effect)

    joining(text, Curious())
    assert [reason.split(" of a state")[0] for reason in reasons] == ["wants chunk 2000"]


def test_nothing_is_kept_for_a_joiner_that_dies_while_its_state_is_written(text: Corpus) -> None:
    died: list[str] = []

    def watch(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            for name in ("worker-3", "worker-4", "worker-5"):
                swarm.seats[name].compute.run = dying(swarm, name, swarm.seats[name].compute.run)  # type: ignore[method-assign]

    def dying(swarm: VirtualSwarm, name: str, run: Callable[[tasks.Task], tasks.Result]) -> Callable[[tasks.Task], tasks.Result]:
        def compute(task: tasks.Task) -> tasks.Result:
            seat = swarm.seats[name]
            if isinstance(task, tasks.Snapshot) and seat.machine.membership._snapshot_for.get(task.version) and not died:
                died.append(name)
                swarm._kill(Kill(JOINER, 0, restart_s=None))
                swarm._perform(name, seat, seat.machine.handle(PeerLost(JOINER, 0), swarm.now))
            return run(task)

        return compute

    spec = tiny_spec(text, replicas=3, micro_batches=3, batch_size=6, steps=8, eval_every=0)
    seen = run_virtual(spec, text, attachments=(Attachment(JOINER, 1, 150),), links=SLOW, on_event=watch)
    assert died
    assert sorted(seen.losses) == list(range(8))
    assert not any(seat.machine.membership._offered for seat in seen.swarm.seats.values())


@pytest.mark.parametrize("asks", [0, 1])
def test_a_joiner_that_asks_for_no_more_is_waited_for_no_longer(text: Corpus, asks: int) -> None:
    """It answers pings, and has nothing to do: only who sends the state can see that nothing comes of it."""
    fetched: list[int] = []

    def meddle(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send = swarm.network.send

            def speak(name: str, by: Any, effect: Send) -> None:
                if isinstance(effect.message, FetchState) and name == JOINER and by.incarnation == 0:
                    fetched.append(swarm.num_events)
                    if len(fetched) > asks:
                        return
                send(name, by, effect)

            swarm.network.send = speak  # type: ignore[method-assign]
            swarm.agenda.put(1000.0, lambda: None)  # or the simulation ends where nobody has anything to do

    seen = joining(text, meddle)
    assert fetched
    assert_unharmed(seen, run_virtual(seen.swarm.spec, text), asks)
    (aside,) = [body for worker, body in seen.of_kind("state") if (worker, body["state"]) == (JOINER, "aside")]
    assert "does not fetch the state" in aside["reason"]
    assert seen.swarm.seats[JOINER].machine.desk.state == "serving", "it came again, and was taken in"
