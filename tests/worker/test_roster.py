"""The roster: who is live, and a rule of who serves what that everybody computes alike."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.spec import worker_name
from pluralis_lab.worker.roster import Peer, Roster, pick


def peers(slots, stage=1):
    return [Peer(worker_name(stage * 16 + slot), stage, slot, f"0x{slot}") for slot in slots]


replicas = st.integers(1, 16)


@given(replicas=replicas, data=st.data(), stage=st.integers(0, 9), round_=st.integers(0, 10**6), index=st.integers(0, 999))
def test_somebody_live_serves_every_micro_batch_whatever_the_order(replicas, data, stage, round_, index):
    slots = data.draw(st.sets(st.integers(0, replicas - 1), min_size=1))
    live = peers(slots, stage)
    chosen = pick(live, stage=stage, round_=round_, index=index, lanes=range(replicas))
    assert chosen in live
    shuffled = data.draw(st.permutations(live))
    assert pick(iter(shuffled), stage=stage, round_=round_, index=index, lanes=range(replicas)) == chosen
    lane = (index + stage * round_) % replicas
    distance = {slot: (slot - lane) % replicas for slot in slots}
    assert distance[chosen.replica] == min(distance.values())  # its lane, or the next live slot after it


@given(replicas=replicas, data=st.data(), stage=st.integers(0, 9), round_=st.integers(0, 10**6), pieces=st.integers(1, 4))
def test_with_everybody_live_the_lanes_are_balanced(replicas, data, stage, round_, pieces):
    everybody = peers(range(replicas), stage)
    served = Counter(
        pick(everybody, stage=stage, round_=round_, index=index, lanes=range(replicas)).name for index in range(replicas * pieces)
    )
    assert set(served.values()) == {pieces}
    assert len(served) == replicas


@given(replicas=st.integers(2, 16), data=st.data(), round_=st.integers(0, 99))
def test_a_death_moves_only_the_dead_ones_micro_batches(replicas, data, round_):
    everybody = peers(range(replicas))
    dead = data.draw(st.sampled_from(everybody))
    alive = [peer for peer in everybody if peer != dead]
    for index in range(3 * replicas):
        before = pick(everybody, stage=1, round_=round_, index=index, lanes=range(replicas))
        after = pick(alive, stage=1, round_=round_, index=index, lanes=range(replicas))
        if before == dead:
            assert after.replica == (dead.replica + 1) % replicas
        else:
            assert after == before


def test_neighbours_change_from_round_to_round_and_heads_keep_their_indices():
    heads, next_stage = peers(range(3), 0), peers(range(3), 1)
    pairs = set()
    for round_ in range(3):
        head = pick(heads, stage=0, round_=round_, index=4, lanes=range(3))
        assert head.replica == 1
        pairs.add((head.replica, pick(next_stage, stage=1, round_=round_, index=4, lanes=range(3)).replica))
    assert len(pairs) == 3


def test_nobody_live_serves_nothing():
    assert pick([], stage=1, round_=0, index=0, lanes=range(2)) is None


@pytest.mark.parametrize("slot", [-1, 2, 99])
def test_a_peer_outside_the_runs_slots_is_never_picked_and_harms_nobody(slot):
    stranger, honest = peers([slot]), peers([1])
    assert pick(stranger, stage=1, round_=0, index=0, lanes=range(2)) is None
    assert pick(stranger + honest, stage=1, round_=0, index=0, lanes=range(2)) == honest[0]


# --- who is live -------------------------------------------------------------------------------------------------------


@pytest.fixture
def roster():
    return Roster(Peer("worker-0", 0, 0, "0x0"), replicas=2)


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


# --- lanes -------------------------------------------------------------------------------------------------------------


def test_a_slot_beyond_the_specs_is_a_lane_from_its_first_admission_on_whoever_dies(roster):
    assert roster.lanes(0, 99) == [0, 1]
    attached = Peer("worker-9", 0, 4, "0x9", since=None)
    roster.add(attached)
    assert roster.lanes(0, 99) == [0, 1]  # it joins still
    roster.promote("worker-9", 7)
    assert roster.lanes(0, 6) == [0, 1]
    assert roster.lanes(0, 7) == [0, 1, 4]
    assert roster.lanes(1, 7) == [0, 1]
    roster.remove("worker-9", 0)
    assert roster.lanes(0, 7) == [0, 1, 4]
    roster.add(Peer("worker-9", 0, 4, "0x9", 1, since=12))
    assert roster.attached_lanes(0) == ((4, 7),)


def test_attached_lanes_share_the_micro_batches_and_a_dead_one_moves_only_its_own(roster):
    roster.add(mate())
    roster.add(Peer("worker-9", 0, 4, "0x9", since=3))
    before = [roster.serve(stage=0, round_=3, index=index).name for index in range(12)]
    assert Counter(before) == {"worker-0": 4, "worker-1": 4, "worker-9": 4}
    assert {roster.serve(stage=0, round_=2, index=index).name for index in range(12)} == {"worker-0", "worker-1"}
    roster.remove("worker-9", 0)
    after = [roster.serve(stage=0, round_=3, index=index).name for index in range(12)]
    assert [new for old, new in zip(before, after, strict=True) if old == new or old == "worker-9"] == after


def test_lanes_handed_over_to_a_joiner_are_as_the_donor_has_them(roster):
    roster.add(Peer("worker-9", 0, 4, "0x9", since=3))
    joiner = Roster(Peer("worker-1", 0, 1, "0x1", 1, None), replicas=2)
    for slot, since in roster.attached_lanes(0):
        joiner.add_lane(0, slot, since)
    assert [joiner.lanes(0, round_) for round_ in range(6)] == [roster.lanes(0, round_) for round_ in range(6)]
