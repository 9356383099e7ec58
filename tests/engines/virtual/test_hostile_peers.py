"""A worker among peers that send what no correct worker sends: it never fails, and one liar costs the run nothing."""

import dataclasses
import itertools
import math
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.receipts import sign_work
from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Attachment, Kill, VirtualSwarm
from pluralis_lab.errors import EvidenceError, WireError
from pluralis_lab.learning.payload import Payload
from pluralis_lab.links import Links
from pluralis_lab.worker import Expel, Peer, Received, worker_name
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.encoding import decode, encode
from pluralis_lab.worker.messages import (
    Activation,
    Committed,
    Contribution,
    Counted,
    Drawn,
    Ended,
    EvalDone,
    Fetch,
    FetchDisplacement,
    FetchPiece,
    FetchReduced,
    FetchState,
    Gradient,
    Have,
    Hello,
    InferActivation,
    Join,
    Lost,
    Message,
    Mislaid,
    Ping,
    Pong,
    ProbeActivation,
    ProbeDone,
    ProbeMislaid,
    StateChunk,
    StateOffer,
    Token,
)
from pluralis_lab.worker.roster import GREETING_S
from tests.engines.conftest import RUN_ID, drawn_seed, run_virtual, tiny_spec
from tests.engines.virtual.every_message import EVERY_TYPE, QUESTIONS, WAYS_TO_TRAIN, every_message
from tests.engines.virtual.test_killed_workers import assert_unharmed

NONSENSE: dict[str, list[Any]] = {
    "int": [0, 1, 2, 3, 5, 7, 10**6, 2**62, -1],
    "float": [0.0, math.nan, math.inf, -1e300],
    "str": ["worker-0", "worker-3", "worker-5", "worker-99", "", "x" * 2000],
    "bytes": [b"", b"garbage"],
    "dict": [{}, {"indices": []}, {"indices": "0", "tokens": -1, "digest": None, "signature": "0x"}],
    "tuple": [(), (0,), (0, 1, 2, 3), ("worker-3",), (("worker-2", "d"),), (("worker-2", 0),), (("worker-99", 5),), (-1, 2**62)],
    "NoneType": [0, 4, 2**62],
    "bool": [True, False],
    "Payload": [Payload((), b""), Payload((("g", "f8", (1,)),), b"\0" * 8), Payload((("z", "i8", (0, 2**30)),), b"")],
}


ONLY_ASK: list[type] = [
    Drawn,  # where nobody draws data of their own, no answer to anything
    Fetch,
    FetchDisplacement,
    FetchPiece,
    FetchReduced,
    FetchState,
    InferActivation,
    Token,
    Mislaid,
    Ended,
    ProbeActivation,
    ProbeDone,
    ProbeMislaid,
    Ping,
    Pong,
]

SECOND_REPLICAS = ["worker-1", "worker-3", "worker-5"]
"""Who sent arrays that cannot be computed with is given up; the first replica of its stage goes on."""


def inject(swarm: VirtualSwarm, source: str, target: str, message: Message, *, expels: bool = True) -> None:
    """Hand `message` to `target` as if `source` had sent it, and do what it says; without `expels`, nobody is given up."""
    seat = swarm.seats[target]
    effects = seat.machine.handle(Received(source, message))
    swarm._perform(target, seat, [effect for effect in effects if expels or not isinstance(effect, Expel)])


def spoilt(rng: random.Random, message: Message) -> Message | None:
    """Return `message` with a field changed, mostly; None when no such bytes get past the reading of a message."""
    field = rng.choice(dataclasses.fields(message)).name
    like = NONSENSE.get(type(getattr(message, field)).__name__, [])
    if like and rng.random() < 0.8:
        message = dataclasses.replace(message, **{field: rng.choice(like)})
    try:
        return decode(encode(message))
    except (WireError, OverflowError):
        return None


def say(rng: random.Random, swarm: VirtualSwarm, message: Message, sources: list[str]) -> bool:
    """Have one of `sources` say `message` to somebody, if there is a pair of which it is sound; return whether there was."""
    pairs = [(source, target) for source in sources for target in sorted(swarm.seats)]
    rng.shuffle(pairs)
    is_sound = False
    for source, target in pairs:
        machine = swarm.seats[target].machine
        if machine.desk.roster.get(source) is not None:
            with suppress(WireError, EvidenceError):
                machine.checks.check(source, message)
                is_sound = True
                break
    inject(swarm, source, target, message, expels=False)
    return is_sound


@pytest.mark.parametrize("way", WAYS_TO_TRAIN)
def test_mutated_messages_from_anybody_never_make_a_worker_fail(text: Corpus, way: str) -> None:
    rng = random.Random(drawn_seed())
    spec = tiny_spec(text, replicas=2, steps=4, **WAYS_TO_TRAIN[way])
    said = every_message(spec, text)
    kinds = sorted(said, key=lambda kind: kind.__name__)
    injected: set[type] = set()

    def meddle(swarm: VirtualSwarm) -> None:
        if swarm.num_events > 1200:
            return
        for _ in range(3):
            if not swarm.seats:
                return
            message = spoilt(rng, rng.choice(said[rng.choice(kinds)]))
            if message is not None:
                injected.add(type(message))
                say(rng, swarm, message, [worker_name(number) for number in range(6)])

    run_virtual(spec, text, asks=QUESTIONS, has_liars=True, on_event=meddle)
    assert injected == EVERY_TYPE


NEVER_SOUND = {
    "sync": {Drawn, FetchDisplacement, FetchPiece, FetchReduced},
    "butterfly": {Drawn, FetchDisplacement},
}
"""By way to train, what is always refused there."""


@pytest.mark.parametrize("way", NEVER_SOUND)
def test_what_only_asks_or_answers_changes_no_weight(text: Corpus, way: str) -> None:
    """As it is or spoilt, the losses are those of a run without. Under `async` they depend on who is busy, too."""
    rng = random.Random(drawn_seed())
    spec = tiny_spec(text, replicas=2, steps=4, **WAYS_TO_TRAIN[way])
    whole, said = run_virtual(spec, text, asks=QUESTIONS), every_message(spec, text)
    sound: Counter[type] = Counter()

    def meddle(swarm: VirtualSwarm) -> None:
        for kind in rng.sample(ONLY_ASK, 2) if swarm.num_events < 1200 else ():
            message = spoilt(rng, rng.choice(said[kind]))
            if message is not None:
                sound[kind] += say(rng, swarm, message, SECOND_REPLICAS)

    seen = run_virtual(spec, text, asks=QUESTIONS, on_event=meddle)
    assert {kind for kind in ONLY_ASK if not sound[kind]} == NEVER_SOUND[way]
    assert seen.losses == pytest.approx(whole.losses, abs=1e-12, rel=0)
    assert seen.validations == pytest.approx(whole.validations, abs=1e-12, rel=0)


def lies(round_: int) -> dict[str, Message]:
    """Return what worker-3 (stage 1 of 3) could say to its replica or to its neighbours, in their round `round_`."""
    key = HotKey.from_seed(bytes([3]))
    payload = Payload((("z", "f8", (2,)), ("ids", "i8", (1,))), b"\0" * 24)
    gradient = Payload((("g", "f8", (3,)),), b"\0" * 24)
    lanes = ((0, ((0, 0, None),)),)
    offered = {"version": round_, "digest": "d", "lanes": lanes, "size_bytes": 10, "hashes": bytes(32), "next_lanes": lanes}

    def offer(**changes: Any) -> StateOffer:
        return StateOffer(**{**offered, **changes})

    def item(kind: Any, of: Payload) -> dict[str, Any]:
        return sign_work(key, RUN_ID, round_, kind, 1, "worker-3", [1], 32, of.digest)

    return {
        "an activation of another shape": Activation(round_, 1, item("forward", payload), payload),
        "a gradient of another shape": Gradient(round_, 1, item("backward", gradient), gradient),
        "somebody else's index": Counted(round_, (0, 1, 2, 3)),
        "an index out of range": Counted(round_, (99,)),
        "a contribution of another size": Contribution(round_, "worker-3", None, None, item("contribution", gradient), gradient),
        "a contribution without signature": Contribution(round_, "worker-2", None, None, {}, gradient),
        "a step of strangers": Committed(round_, (("worker-99", "d"),)),
        "a step that leaves indices out": Committed(round_, (("worker-3", "d"),)),
        "a Have of what nobody has": Have(round_, (("worker-3", "zz"),), ()),
        "a Have of strangers": Have(round_, (("worker-99", "d"),), ()),
        "a Have with joiners of another stage": Have(round_, (("worker-2", "d"),), (("worker-5", 0, False),)),
        "a Hello with another's key": Hello(1, 1, "0x" + "00" * 20, 0, 0, True),
        "a Hello from another seat": Hello(2, 0, key.address, 0, 0, True),
        "a loss that is none": EvalDone(round_, 0, math.nan, 32),
        "all later incarnations of a peer are gone": Lost("worker-99", 2**60),
        "a wish to join of one who takes part": Join(0, False),
        "a state of a round that never comes": offer(version=10**9),
        "a state without lanes": offer(lanes=()),
        "a state with lanes of nobody": offer(lanes=((0, ((7, 0, None),)),)),
        "a state with lanes without anybody": offer(lanes=((0, ()),)),
        "a state with lanes out of order": offer(lanes=((4, ((0, 0, None),)), (2, ((0, 0, None),)))),
        "a state with the lanes of a whole run": offer(lanes=tuple((number, ((0, 0, number),)) for number in range(99))),
        "a state with lanes of rounds far ahead": offer(lanes=((0, ((0, 0, None),)), (10**9, ((0, 0, None),)))),
        "a state without the next stage's lanes": offer(next_lanes=()),
        "a state with lanes of the next stage far ahead": offer(next_lanes=((10**9, ((0, 0, None),)),)),
        "a state that names who is of another stage": offer(peers=(("worker-0", 0, round_, True),)),
        "a state that names a stranger": offer(peers=(("worker-99", 0, round_, True),)),
        "a state that names somebody far ahead": offer(peers=(("worker-4", 0, 10**9, False),)),
        "a state that names somebody twice": offer(peers=(("worker-4", 0, round_, True), ("worker-4", 1, round_, True))),
        "a state larger than any": offer(size_bytes=10**12, hashes=bytes(32 * 2048)),
        "a state of nothing": offer(size_bytes=0),
        "a state with hashes for another": offer(hashes=bytes(64)),
        "a wish for a chunk that no state has": FetchState(round_, "d", (5000,)),
        "a wish for more chunks than are sent at once": FetchState(round_, "d", tuple(range(100))),
        "a chunk that no state has": StateChunk(round_, "d", 5000, b""),
        "lanes at no pace": Committed(round_, (), (), ((0, 0, 10**9),)),
        "lanes twice the same": Committed(round_, (), (), ((0, 0, 1), (0, 0, 1))),
        "a round far ahead": Counted(10**6, (0,)),
    }


@pytest.mark.drawn(keep=10)
@pytest.mark.parametrize("lie", lies(0))
def test_one_lie_to_everybody_costs_the_run_nothing(text: Corpus, lie: str) -> None:
    spec = tiny_spec(text, replicas=2, steps=4, eval_every=0)
    whole = run_virtual(spec, text)
    told: list[str] = []

    def tell(swarm: VirtualSwarm) -> None:
        if swarm.num_events == whole.swarm.num_events // 2:
            for target in ("worker-0", "worker-2", "worker-4"):
                round_ = swarm.seats[target].machine.desk.round
                told.append(target)
                inject(swarm, "worker-3", target, lies(round_)[lie])

    seen = run_virtual(spec, text, on_event=tell)
    assert told == ["worker-0", "worker-2", "worker-4"]
    assert sorted(seen.losses) == sorted(whole.losses), "the run stalled"
    for number, loss in whole.losses.items():
        assert seen.losses[number] == pytest.approx(loss, abs=1e-12, rel=0)
    reasons = [body["reason"] for worker, body in seen.of_kind("state") if body["state"] == "dead" and worker != "worker-3"]
    assert not reasons, f"honest workers were given up: {reasons}"


class FalseOffers:
    """Has `liar` name who is not there in each state that it offers; a simulation goes on for as long as that is believed.

    ghost : (worker, incarnation), who is said to take part since round 0
    all_have_begun : whether it says of everybody that they have their state
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, liar: str, ghost: tuple[str, int], *, all_have_begun: bool = False
    ) -> None:
        self.told: list[str] = []
        """The joiners that were lied to."""
        self._waits = 0
        broadcast = Desk.broadcast

        def lie(desk: Desk, targets: list[Peer], message: Message) -> None:
            if isinstance(message, StateOffer) and desk.me.name == liar:
                self.told.extend(peer.name for peer in targets)
                named = {entry[0]: entry for entry in (*message.peers, (*ghost, 0, True))}
                peers = ((*entry[:3], entry[3] or all_have_begun) for entry in named.values())
                message = dataclasses.replace(message, peers=tuple(sorted(peers)))
            broadcast(desk, targets, message)

        monkeypatch.setattr(Desk, "broadcast", lie)

    def __call__(self, swarm: VirtualSwarm) -> None:
        """Have a simulation wait as a run does, though nothing happens in it."""
        if len(self.told) > self._waits:
            self._waits = len(self.told)
            swarm.agenda.put(swarm.now + 3 * GREETING_S, lambda: None)


@pytest.mark.parametrize("ghost", ["another life of one on its way", "nobody"])
def test_a_liar_that_names_to_a_joiner_who_is_not_there_delays_the_run(
    text: Corpus, ghost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that it names has not greeted the joiner yet, or does not live: what is dealt to it goes to others in the end."""
    spec = tiny_spec(text, stages=2, replicas=2, steps=12)
    links = Links("80mbit", 20, pairs=(("worker-4", "worker-5", "80mbit", 400),))
    whole = run_virtual(spec, text, links=links)
    kills = (Kill("worker-5", 100, None),) if ghost == "nobody" else ()
    come = (Attachment("worker-5", 1, 60 if kills else 140), Attachment("worker-4", 0, 135))
    offers = FalseOffers(monkeypatch, "worker-0", ("worker-5", 9))
    seen = run_virtual(spec, text, links=links, attachments=come, kills=kills, on_event=offers)
    assert offers.told == ["worker-4"]
    assert_unharmed(seen, whole, ghost)
    known = {peer.name for peer in seen.swarm.seats["worker-4"].machine.desk.roster.others()}
    assert known == seen.swarm.seats.keys() - {"worker-4"}
    unmet = [(worker, body) for worker, _, kind, body in seen.reports if kind == "unmet"]
    assert [(worker, body["peer"]) for worker, body in unmet] == ([("worker-4", "worker-5")] if ghost == "nobody" else [])
    assert all(GREETING_S <= body["waited_s"] < 2 * GREETING_S for _, body in unmet)


@pytest.mark.parametrize("sync", [pl.FullSync(), pl.FullSync(transport="butterfly")], ids=["gather", "butterfly"])
def test_a_liar_that_names_a_dead_mate_to_a_joiner_delays_the_run(
    text: Corpus, sync: pl.FullSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one that lives, and has not the state yet, as if it took part."""
    spec = tiny_spec(text, stages=2, replicas=2, steps=10, sync=sync)
    whole = run_virtual(spec, text)
    offers = FalseOffers(monkeypatch, "worker-3", ("worker-2", 9), all_have_begun=True)
    kills = (Kill("worker-2", 60, None),)
    for gap in (5, 30, 60):
        come = (Attachment("worker-4", 1, 90), Attachment("worker-5", 1, 90 + gap))
        seen = run_virtual(spec, text, attachments=come, kills=kills, on_event=offers)
        assert_unharmed(seen, whole, gap)
    assert {"worker-4", "worker-5"} == set(offers.told)


@pytest.mark.parametrize("incarnation", [1, 9], ids=["its next life", "a life that is none"])
def test_who_comes_back_is_let_in_whatever_was_said_of_it(
    text: Corpus, incarnation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A liar has named it to a joiner, and dies: the joiner, which alone is left, must not take it for one that takes part."""
    spec = tiny_spec(text, stages=2, replicas=2, steps=14, eval_every=0)
    offers, begun = FalseOffers(monkeypatch, "worker-3", ("worker-2", incarnation)), []

    def look(swarm: VirtualSwarm) -> None:
        offers(swarm)
        seat = swarm.seats.get("worker-4")
        if not begun and seat is not None and seat.machine.desk.state == "active":
            begun.append(swarm.now)
            swarm.agenda.put(swarm.now + 0.05, lambda: swarm._kill(Kill("worker-3", 0, None, loses_wire=False)))
            swarm.agenda.put(swarm.now + 0.5, lambda: swarm._restart("worker-2", 1))

    come, kills = (Attachment("worker-4", 1, 90),), (Kill("worker-2", 60, None),)
    seen = run_virtual(spec, text, attachments=come, kills=kills, on_event=look)
    assert begun
    assert offers.told == ["worker-4"]
    assert sorted(seen.losses) == list(range(spec.steps)), "the run stalled"
    assert not seen.expelled()
    serving = {name for name, seat in seen.swarm.seats.items() if seat.machine.desk.state == "serving"}
    assert serving == {"worker-0", "worker-1", "worker-2", "worker-4"}


class DealsTwice:
    """Has the head worker-1 send to worker-4 what another head was dealt and sent to another replica, which has counted it."""

    def __init__(self, from_event: int) -> None:
        self._from = from_event
        self.counted_by: str | None = None
        """Who had counted it; None before it was sent."""
        self.left_at: list[int] = []
        """Numbers of the events at which worker-4 left it to that replica."""

    def __call__(self, swarm: VirtualSwarm) -> None:
        if "worker-4" not in swarm.seats:
            return
        desk = swarm.seats["worker-4"].machine.desk
        if self.counted_by is not None:
            self.left_at += [swarm.num_events for state in desk.rounds.values() if state.yielded]
        elif swarm.num_events >= self._from and desk.state == "active":
            state = desk.current()
            for holder, indices in state.peers_counted.items():
                for index in sorted(indices - state.senders.keys()):
                    dealer = worker_name(desk.roster.lanes(0).turns(state.round, index)[0])
                    if dealer != "worker-1":
                        self.counted_by = holder
                        output = swarm.seats[dealer].machine.desk.rounds[state.round].sent[index].payload
                        item = swarm.seats["worker-1"].machine.desk.sign("forward", state.round, [index], output)
                        inject(swarm, "worker-1", "worker-4", Activation(state.round, index, item, output))
                        return


def test_what_a_head_deals_again_is_left_to_the_replica_that_has_counted_it(text: Corpus) -> None:
    """Either would take the other for a liar. And if that one dies, it is counted after all."""
    spec = tiny_spec(text, replicas=3, steps=4)
    whole = run_virtual(spec, text)
    for first in range(10, whole.swarm.num_events, whole.swarm.num_events // 5):
        deals = DealsTwice(first)
        assert_unharmed(run_virtual(spec, text, on_event=deals), whole, first)
        if deals.counted_by is None:
            continue  # too late: nothing was left to deal
        assert deals.left_at, "it was not left to who had counted it"
        for moment, restart_s in itertools.product(deals.left_at[:: max(1, len(deals.left_at) // 2)], (0.02, 0.00001)):
            kill = Kill(deals.counted_by, moment, restart_s)
            assert_unharmed(run_virtual(spec, text, kills=(kill,), on_event=DealsTwice(first)), whole, kill)
