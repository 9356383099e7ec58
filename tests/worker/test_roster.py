"""The roster: who is live, and who serves which micro-batch, which everybody computes alike."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.spec import worker_name
from pluralis_lab.worker.roster import Peer, Roster


def peers(slots, stage=1):
    return [Peer(worker_name(stage * 16 + slot), stage, slot, f"0x{slot}") for slot in slots]


def a_roster(replicas, live, *, each=1):
    """Return what a worker of stage 99 knows when `live` take part."""
    roster = Roster(Peer("me", 99, 0, "0x"), replicas=replicas, num_micro_batches=replicas * each, keep=8)
    for peer in live:
        roster.add(peer)
    return roster


replicas = st.integers(1, 16)


@given(replicas=replicas, data=st.data(), stage=st.integers(0, 9), round_=st.integers(0, 10**6), index=st.integers(0, 999))
def test_somebody_live_serves_every_micro_batch_whatever_the_order(replicas, data, stage, round_, index):
    slots = data.draw(st.sets(st.integers(0, replicas - 1), min_size=1))
    live = peers(slots, stage)
    chosen = a_roster(replicas, live).serve(stage=stage, round_=round_, index=index)
    assert chosen in live
    shuffled = data.draw(st.permutations(live))
    assert a_roster(replicas, shuffled).serve(stage=stage, round_=round_, index=index) == chosen
    lane = (index + stage * round_) % replicas
    distance = {slot: (slot - lane) % replicas for slot in slots}
    assert distance[chosen.replica] == min(distance.values())  # its lane, or the next live slot after it


@given(replicas=replicas, stage=st.integers(0, 9), round_=st.integers(0, 10**6), each=st.integers(1, 4))
def test_with_everybody_live_the_lanes_are_balanced(replicas, stage, round_, each):
    roster = a_roster(replicas, peers(range(replicas), stage), each=each)
    served = Counter(roster.serve(stage=stage, round_=round_, index=index).name for index in range(replicas * each))
    assert set(served.values()) == {each}
    assert len(served) == replicas


@given(replicas=st.integers(2, 16), data=st.data(), round_=st.integers(0, 99))
def test_a_death_moves_only_the_dead_ones_micro_batches_and_to_all_others_alike(replicas, data, round_):
    moved = Counter()
    everybody = peers(range(replicas))
    dead = data.draw(st.sampled_from(everybody))
    whole, left = a_roster(replicas, everybody, each=3), a_roster(replicas, [peer for peer in everybody if peer != dead], each=3)
    for index in range(3 * replicas):
        before = whole.serve(stage=1, round_=round_, index=index)
        after = left.serve(stage=1, round_=round_, index=index)
        if before == dead:
            moved[after] += 1
        else:
            assert after == before
    assert sum(moved.values()) == 3
    assert len(moved) == min(3, replicas - 1)


def test_neighbours_change_from_round_to_round_and_heads_keep_their_indices():
    roster = a_roster(3, peers(range(3), 0) + peers(range(3), 1), each=2)
    pairs = set()
    for round_ in range(3):
        head = roster.serve(stage=0, round_=round_, index=4)
        assert head.replica == 1
        pairs.add((head.replica, roster.serve(stage=1, round_=round_, index=4).replica))
    assert len(pairs) == 3


def test_nobody_live_serves_nothing():
    assert a_roster(2, []).serve(stage=1, round_=0, index=0) is None


def test_who_takes_part_but_has_no_lane_that_is_known_here_is_asked_last():
    stranger, known = peers([7]), peers([1])
    assert a_roster(2, stranger).serve(stage=1, round_=0, index=0) == stranger[0]
    assert a_roster(2, stranger + known).serve(stage=1, round_=0, index=0) == known[0]


def test_older_news_of_lanes_changes_nothing_and_a_joiner_deals_as_its_donor():
    roster = a_roster(2, peers([0, 1]), each=3)
    roster.add(Peer("worker-20", 1, 4, "0x4", since=5))  # it says so before its stage does
    roster.set_lanes(1, 3, ((0, 0, None),))
    assert [roster.serve(stage=1, round_=4, index=index).replica for index in range(6)] == [0, 1, 0, 1, 0, 1]
    dealt = [roster.serve(stage=1, round_=5, index=index).replica for index in range(6)]
    assert Counter(dealt) == {0: 2, 1: 2, 4: 2}
    joiner = a_roster(2, peers([0, 1, 4]), each=3)
    joiner.take_over_lanes(1, tuple(roster.lanes(1).tables))
    assert [joiner.serve(stage=1, round_=5, index=index).replica for index in range(6)] == dealt


def test_who_takes_over_another_stages_lanes_deals_to_who_came_there_since_too():
    joiner = a_roster(2, peers([0, 4]), each=3)
    joiner.take_over_lanes(1, ((0, ((0, 0, None), (1, 0, None))), (5, ((0, 0, 30),))))
    assert joiner.lanes(1).of(4) == ((0, 0, None), (1, 0, None))
    assert joiner.lanes(1).of(6) == ((0, 0, 30), (4, 0, None))


# --- who is live -------------------------------------------------------------------------------------------------------


@pytest.fixture
def roster():
    return Roster(Peer("worker-0", 0, 0, "0x0"), replicas=2, num_micro_batches=4, keep=8)


def mate(incarnation=0, since=0):
    return Peer("worker-1", 0, 1, "0x1", incarnation, since)


def test_a_lost_incarnation_does_not_come_back_and_the_next_one_does(roster):
    assert roster.add(mate(0))
    assert roster.remove("worker-1", 0) == mate(0)
    assert not roster.is_live("worker-1")
    assert not roster.add(mate(0))
    assert roster.add(mate(1))
    assert roster.get("worker-1").incarnation == 1


def test_late_news_of_an_old_incarnation_changes_nothing(roster):
    roster.add(mate(2))
    assert not roster.add(mate(1))
    assert roster.remove("worker-1", 1) is None
    assert roster.get("worker-1") == mate(2)


def test_a_loss_that_is_heard_before_the_hello_counts(roster):
    assert roster.remove("worker-1", 3) is None
    assert not roster.add(mate(3))
    assert roster.remove("worker-1", 1) is None  # does not forget the later one
    assert not roster.add(mate(3))
    assert roster.add(mate(4))


def test_a_worker_serves_from_the_round_it_was_admitted_for(roster):
    roster.add(mate(since=None))
    assert [peer.name for peer in roster.stage(0)] == ["worker-0", "worker-1"]
    assert [peer.name for peer in roster.serving(0, 5)] == ["worker-0"]
    roster.promote("worker-1", 7)
    assert [peer.name for peer in roster.serving(0, 6)] == ["worker-0"]
    assert [peer.name for peer in roster.serving(0, 7)] == ["worker-0", "worker-1"]
    roster.promote("worker-1", None)
    assert [peer.name for peer in roster.serving(0, 99)] == ["worker-0"]


def test_stages_are_kept_apart_in_slot_order_and_others_leaves_me_out(roster):
    for stage, slot in ((1, 1), (0, 1), (1, 0)):
        roster.add(Peer(worker_name(2 * stage + slot), stage, slot, "0x"))
    assert [peer.name for peer in roster.stage(1)] == ["worker-2", "worker-3"]
    assert [peer.name for peer in roster.stage(0)] == ["worker-0", "worker-1"]
    assert {peer.name for peer in roster.others()} == {"worker-1", "worker-2", "worker-3"}
    assert roster.stage(9) == []
