"""What becomes of a message in the virtual network: when it arrives, in which order, and when it does not."""

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import VirtualSwarm
from pluralis_lab.engines.virtual.agenda import Agenda
from pluralis_lab.engines.virtual.network import Network
from pluralis_lab.engines.virtual.seat import Seat
from pluralis_lab.links import Links
from pluralis_lab.worker import Event, Received, Send
from pluralis_lab.worker.messages import FetchState, Lost, Message, StateChunk
from tests.engines.conftest import run_virtual, tiny_spec

LARGE = StateChunk(3, "d", 0, bytes(500_000))
SMALL = FetchState(3, "d", (0,))


class Post:
    """A network of its own between workers who have met, and what arrives in it: (second, target, source, message)."""

    def __init__(self, swarm: VirtualSwarm, links: Links) -> None:
        self.agenda, self.seats = Agenda(), dict(swarm.seats)
        self.network = Network(self.agenda, links, self.seats, self._tell, is_modelled=False)
        self.arrived: list[tuple[float, str, str, type[Message]]] = []

    def _tell(self, target: str, seat: Seat, event: Event) -> None:
        assert isinstance(event, Received)
        assert seat is self.seats[target]
        self.arrived.append((self.agenda.now, target, event.source, type(event.message)))

    def send(self, source: str, target: str, message: Message) -> None:
        self.network.send(source, self.seats[source], Send(target, message))

    def deliver(self) -> list[tuple[float, str, str, type[Message]]]:
        """Let the time pass until everything has arrived or is lost."""
        while not self.agenda.is_over:
            self.agenda.do_next()
        return self.arrived


@pytest.fixture
def swarm(text: Corpus) -> VirtualSwarm:
    """Six workers in three stages, who have met and are in their first round."""
    spec = tiny_spec(text, replicas=2)
    seen = run_virtual(spec, text, on_event=lambda swarm: True if swarm.num_events == spec.num_workers else None)
    assert seen.swarm is not None
    return seen.swarm


def test_bytes_take_what_the_link_takes_and_pairs_do_not_hold_each_other_up(swarm: VirtualSwarm) -> None:
    post, meter = Post(swarm, Links("8mbit", 100)), swarm.seats["worker-0"].meter
    meter.take()
    for target in ("worker-2", "worker-3"):
        for _ in range(2):
            post.send("worker-0", target, SMALL)
    size = sum(sum(sizes.values()) for sizes in meter.take()[0].values()) / 4
    arrived = post.deliver()
    assert [target for _, target, *_ in arrived] == ["worker-2", "worker-3"] * 2
    assert [at for at, *_ in arrived] == pytest.approx([0.1 + number * size / 1e6 for number in (1, 1, 2, 2)], abs=1e-12)


def test_what_may_wait_lets_pass_what_comes_after_it(swarm: VirtualSwarm) -> None:
    post = Post(swarm, Links("8mbit", 100))
    for message in (LARGE, SMALL):
        post.send("worker-0", "worker-2", message)
    (first, *_, what), (last, *_) = post.deliver()
    assert what is FetchState
    assert first < 0.25, "behind one piece, and not behind all"
    assert last == pytest.approx(0.6, rel=0.01)


def test_who_stands_still_sends_the_rest_when_it_goes_on(swarm: VirtualSwarm) -> None:
    post = Post(swarm, Links("8mbit", 100))
    post.seats["worker-0"].frozen = (0.05, 9.0)
    post.send("worker-0", "worker-2", LARGE)
    ((at, *_),) = post.deliver()
    assert 9.0 < at < 9.6


@pytest.mark.parametrize("loses_wire", [False, True])
def test_what_a_dead_worker_had_sent_arrives_unless_it_is_lost_with_it(swarm: VirtualSwarm, loses_wire: bool) -> None:
    post = Post(swarm, Links("8mbit", 100))
    post.send("worker-0", "worker-2", SMALL)
    post.send("worker-0", "worker-3", LARGE)
    del post.seats["worker-0"]
    if loses_wire:
        post.network.lose_what_is_sent_by("worker-0", 0)
    arrived = [(target, what) for _, target, _, what in post.deliver()]
    assert arrived == ([] if loses_wire else [("worker-2", FetchState)]), "what it had not sent yet is gone anyhow"


def test_nothing_reaches_another_life_of_the_one_it_was_sent_to(swarm: VirtualSwarm) -> None:
    post = Post(swarm, Links("8mbit", 100))
    post.send("worker-0", "worker-2", SMALL)
    post.seats["worker-2"] = swarm._seat("worker-2", 1, None)
    post.send("worker-0", "worker-2", SMALL)  # who knows only the first
    assert post.deliver() == []


def test_a_later_life_closes_the_stream_of_the_one_before_with_its_own_greeting_alone(swarm: VirtualSwarm) -> None:
    post = Post(swarm, Links("8mbit", 100))
    roster = post.seats["worker-2"].machine.desk.roster
    known = roster.get("worker-0")
    assert known is not None
    for is_met in (False, True):
        roster._put(type(known)(**{**vars(known), "incarnation": 1, "is_met": is_met}))
        post.send("worker-0", "worker-2", Lost("worker-5", 0))
        assert len(post.deliver()) == 1, "only from who was said to have another life"
