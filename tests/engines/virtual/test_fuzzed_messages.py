"""Every message that a worker accepts, spoilt: it expels who sent it and does nothing else, or it takes it for what it is."""

import dataclasses
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.receipts import sign_work
from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import VirtualSwarm
from pluralis_lab.errors import EvidenceError, WireError
from pluralis_lab.learning.payload import Payload, pack
from pluralis_lab.learning.usable import largest_usable
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import Expel, Received, worker_name
from pluralis_lab.worker.encoding import decode, encode
from pluralis_lab.worker.messages import (
    Activation,
    Committed,
    Contribution,
    Counted,
    EvalActivation,
    EvalDone,
    Fetch,
    Gradient,
    Have,
    Message,
    Piece,
    ProbeActivation,
    Reduced,
)
from tests.engines.conftest import RUN_ID, run_virtual, tiny_spec
from tests.engines.virtual.every_message import EVERY_TYPE, WAYS_TO_TRAIN, every_message, messages_of
from tests.engines.virtual.poison import poisoned
from tests.engines.virtual.test_hostile_peers import inject

HUGE = 2**62


def half_way(spec: RunSpec, text: Corpus) -> VirtualSwarm:
    """Return a run that has stopped in the middle."""
    whole = run_virtual(spec, text)
    assert whole.swarm is not None
    middle = whole.swarm.num_events // 2
    swarm = run_virtual(spec, text, on_event=lambda swarm: True if swarm.num_events == middle else None).swarm
    assert swarm is not None
    assert len(swarm.seats) == spec.num_workers
    return swarm


def remembered(swarm: VirtualSwarm, target: str) -> bytes:
    """Return all that `target` remembers of rounds and peers."""
    machine = swarm.seats[target].machine
    return pickle.dumps((machine.desk.rounds, machine.desk.roster._peers, machine.desk.round, machine.commit.waiting_joiners))


numbers = st.integers(-1, 12) | st.sampled_from([10**6, 2**40, HUGE, 2**63 - 1])
names = st.sampled_from([worker_name(number) for number in range(7)]) | st.text(max_size=9) | st.just("x" * 3000)
shapes = st.lists(st.integers(0, 5) | st.sampled_from([2**30, HUGE]), max_size=3)
payloads = st.builds(
    lambda shape, value: pack([("g", torch.full(shape, value, dtype=torch.float64))]),
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from([0.0, math.nan, math.inf, 1e308]),
)
SPOILT: dict[str, st.SearchStrategy[Any]] = {
    "int": numbers,
    "NoneType": numbers,
    "float": st.floats(),
    "bool": st.booleans(),
    "str": names,
    "bytes": st.binary(max_size=40),
    "dict": st.dictionaries(st.sampled_from(["indices", "tokens", "digest", "signature"]), numbers | names | st.lists(numbers)),
    "Payload": payloads,
    "tuple": st.lists(numbers, max_size=4).map(tuple)
    | st.lists(st.tuples(names, names), max_size=3).map(tuple)
    | st.lists(st.tuples(names, numbers, st.booleans()), max_size=3).map(tuple)
    | st.integers(10_000, 50_000).map(lambda count: tuple(range(count))),
}


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("way", WAYS_TO_TRAIN)
def test_what_no_worker_says_ends_in_the_expulsion_of_who_said_it_and_changes_nothing(text: Corpus, way: str) -> None:
    spec = tiny_spec(text, replicas=2, steps=4, **WAYS_TO_TRAIN[way])
    said, swarm = every_message(spec, text), half_way(spec, text)
    handled: set[type] = set()
    refused: set[type] = set()

    @settings(max_examples=16, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def spoilt(kind: type, data: st.DataObject) -> None:
        message: Message = data.draw(st.sampled_from(said[kind][:40]))
        fields = data.draw(st.lists(st.sampled_from([field.name for field in dataclasses.fields(message)]), max_size=2))
        for field in fields:
            message = dataclasses.replace(message, **{field: data.draw(SPOILT[type(getattr(message, field)).__name__])})
        try:
            message = decode(encode(message))
        except (WireError, OverflowError, TypeError):
            return  # no such bytes get past the reading of a message (test_messages)
        target, source = (worker_name(data.draw(st.integers(0, spec.num_workers - 1))) for _ in range(2))
        machine = swarm.seats[target].machine
        try:
            machine.checks.check(source, message)
            is_sound = True
        except (WireError, EvidenceError):
            is_sound = False
        before = remembered(swarm, target)
        effects = machine.handle(Received(source, message))
        handled.add(type(message))
        if not is_sound and machine.desk.roster.get(source) is not None:
            (effect,) = effects
            assert isinstance(effect, Expel)
            assert effect.worker == source
            assert effect.reason.startswith(type(message).__name__)
            assert len(effect.reason) < 600
            assert remembered(swarm, target) == before
            refused.add(type(message))

    for kind in sorted(said, key=lambda kind: kind.__name__):
        spoilt(kind)
    assert handled == EVERY_TYPE
    assert len(refused) > len(EVERY_TYPE) // 2


def breaches(swarm: VirtualSwarm, said: dict[type, list[Message]]) -> dict[str, tuple[str, str, Message]]:
    """Return (sender, receiver, message) of lies whose bytes are sound: true messages of this run, with one thing changed."""
    desk = swarm.seats["worker-3"].machine.desk
    round_ = desk.round
    key = HotKey.from_seed(bytes([3]))

    def true(kind: type, **facts: Any) -> Any:
        return next(message for message in said[kind] if all(getattr(message, name) == value for name, value in facts.items()))

    def item(
        of: Payload, kind: Any, run: str = RUN_ID, stage: int = 1, indices: tuple[int, ...] = (1,), number: int = round_
    ) -> Any:
        return sign_work(key, run, number, kind, stage, "worker-3", list(indices), 32 * len(indices), of.digest)

    activation, gradient = true(Activation).payload, true(Gradient).payload
    mine = next(message for message in said[Contribution] if isinstance(message, Contribution) and message.worker == "worker-3")
    foreign = "cd" * 32
    loss = 2 * largest_usable(torch.float64)
    nobody = "x" * 3000
    evaluated = EvalActivation(HUGE, 0, nobody, true(EvalActivation).payload)
    probed = ProbeActivation("0" * 16, -1, nobody, activation)
    two = tuple(sorted([("worker-2", "a"), ("worker-2", "b")]))
    found: dict[str, tuple[str, str, Message]] = {
        "work of a foreign run": (
            "worker-3",
            "worker-4",
            Activation(round_, 1, item(activation, "forward", foreign), activation),
        ),
        "a gradient of a foreign run": (
            "worker-3",
            "worker-0",
            Gradient(round_, 1, item(gradient, "backward", foreign), gradient),
        ),
        "work of another round": (
            "worker-3",
            "worker-4",
            Activation(round_, 1, item(activation, "forward", number=round_ - 1), activation),
        ),
        "a contribution of a foreign run": (
            "worker-3",
            "worker-2",
            dataclasses.replace(mine, round=round_, item=item(mine.payload, "contribution", foreign)),
        ),
        "a round that never comes": ("worker-3", "worker-2", Counted(HUGE, (0,))),
        "a round before the first": ("worker-3", "worker-2", Fetch(-1, "worker-3")),
        "a thousand indices": ("worker-3", "worker-2", Counted(round_, tuple(range(1000)))),
        "two contributions of one worker": ("worker-3", "worker-2", Have(round_, two, ())),
        "a step with two contributions of one worker": ("worker-3", "worker-2", Committed(round_, two)),
        "a version that never comes, for nobody": ("worker-1", "worker-3", evaluated),
        "an index before the first, for nobody": ("worker-1", "worker-3", probed),
        "a loss that is none": ("worker-4", "worker-0", EvalDone(0, 0, math.nan, 32)),
        "a loss that adds up to infinity": ("worker-4", "worker-0", EvalDone(0, 0, loss, 32)),
        "a chunk that there is not": ("worker-3", "worker-2", Piece(round_, "d", 1, mine.payload)),
        "a sum that there is not": ("worker-3", "worker-2", Reduced(round_, (("worker-2", "a"),), 0, "worker-3", mine.payload)),
    }
    return found


LIES = 15


@pytest.mark.drawn(keep=5)
@pytest.mark.parametrize("number", range(LIES))
def test_a_sound_message_with_a_false_claim_is_its_senders_end(text: Corpus, number: int) -> None:
    spec = tiny_spec(text, replicas=2, steps=4)
    swarm = half_way(spec, text)
    lies = breaches(swarm, messages_of(spec, text))
    assert len(lies) == LIES
    name = sorted(lies)[number]
    source, target, message = lies[name]
    before = remembered(swarm, target)
    (effect,) = swarm.seats[target].machine.handle(Received(source, decode(encode(message))))
    assert isinstance(effect, Expel), name
    assert effect.worker == source, name
    assert len(effect.reason) < 300, name
    assert remembered(swarm, target) == before, name


@pytest.mark.drawn(keep=3)
@pytest.mark.parametrize("kind", [Activation, Gradient, EvalActivation])
@pytest.mark.parametrize("value", [math.nan, math.inf, 2 * largest_usable(torch.float64)])
def test_numbers_on_their_way_that_cannot_be_computed_with_are_their_senders_fault(
    text: Corpus, kind: type, value: float
) -> None:
    """They reach the arithmetic, and nothing of it the weights; the losses are those of a run without."""
    spec = tiny_spec(text, replicas=2, steps=4)
    whole = run_virtual(spec, text)
    told: list[str] = []

    def meddle(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send, seat, key = swarm.network.send, swarm.seats["worker-3"], HotKey.from_seed(bytes([3]))

            def speak(name: str, by: Any, effect: Any) -> None:
                message = effect.message
                if by is seat and type(message) is kind and getattr(message, "round", getattr(message, "version", 0)) in (1, 2):
                    payload = poisoned(message.payload, value)
                    message = dataclasses.replace(message, payload=payload)
                    if kind is not EvalActivation:
                        work = "forward" if kind is Activation else "backward"
                        signed = sign_work(key, RUN_ID, message.round, work, 1, "worker-3", [message.index], 32, payload.digest)
                        message = dataclasses.replace(message, item=signed)
                    told.append(effect.target)
                    effect = dataclasses.replace(effect, message=message)
                send(name, by, effect)

            swarm.network.send = speak  # type: ignore[method-assign]

    seen = run_virtual(spec, text, on_event=meddle)
    assert told
    reasons = {worker: str(body.get("reason")) for worker, body in seen.of_kind("state") if body["state"] == "dead"}
    assert list(reasons) == ["worker-3"]
    assert "NaN, infinity or a number beyond" in reasons["worker-3"]
    assert seen.losses == pytest.approx(whole.losses, abs=1e-12)
    assert seen.validations == pytest.approx(whole.validations, abs=1e-12)


def test_a_bad_validation_batch_that_comes_twice_is_refused_twice_and_no_more(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=4)
    whole = run_virtual(spec, text)
    told = []

    def tell(swarm: VirtualSwarm) -> None:
        desk = swarm.seats["worker-4"].machine.desk
        if not told and desk.round == 2:
            told.append(swarm.num_events)
            bad = EvalActivation(2, 0, "worker-0", Payload((("z", "f8", (1,)),), b"\0" * 8))
            inject(swarm, "worker-3", "worker-4", bad)
            inject(swarm, "worker-3", "worker-4", bad)

    seen = run_virtual(spec, text, on_event=tell)
    assert told
    assert seen.losses == pytest.approx(whole.losses, abs=1e-12)


def test_a_bad_activation_of_what_another_was_dealt_does_not_make_its_true_one_forgotten(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=2, steps=4)
    whole = run_virtual(spec, text)
    told: list[int] = []

    def meddle(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send, key = swarm.network.send, HotKey.from_seed(bytes([3]))

            def speak(name: str, by: Any, effect: Any) -> None:
                message = effect.message
                if name == "worker-2" and isinstance(message, Activation) and message.round == 1:
                    bad = poisoned(message.payload, math.nan)  # from worker-3, a moment before worker-2 sends the true one
                    item = sign_work(key, RUN_ID, 1, "forward", 1, "worker-3", [message.index], 32, bad.digest)
                    told.append(message.index)
                    inject(swarm, "worker-3", effect.target, Activation(1, message.index, item, bad))
                    inject(swarm, "worker-2", effect.target, message)
                send(name, by, effect)

            swarm.network.send = speak  # type: ignore[method-assign]

    seen = run_virtual(spec, text, on_event=meddle)
    assert told
    assert [worker for worker, body in seen.of_kind("state") if body["state"] == "dead"] == ["worker-3"]
    assert seen.losses == pytest.approx(whole.losses, abs=1e-12)
