"""Who takes part, as one worker sees it, and who serves which micro-batch."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from pluralis_lab.worker.lanes import ROUNDS_KEPT, Lanes, Table

GREETING_S = 30.0
"""Who others say takes part, and has not greeted for so long, is waited for no longer: its greeting was sent before it was let
in, and takes what the link takes."""


@dataclass(frozen=True)
class Peer:
    """A worker as others know it.

    name, stage, replica : its slot in the run; `incarnation` counts the restarts of that slot
    key : address of the hot key that signs its work
    since : first round it takes work in; None while it joins
    is_awaited : its stage has admitted it, and it has not said yet that it has the state
    is_met : it has said hello here; to who has not, nothing can be sent, but what it is dealt is kept for it
    """

    name: str
    stage: int
    replica: int
    key: str
    incarnation: int = 0
    since: int | None = 0
    is_awaited: bool = False
    is_met: bool = True


class Roster:
    """The live workers, by stage, and the lanes that the stages deal micro-batches out in.

    replicas : slots of each stage that the spec names
    num_micro_batches : of a round
    keep : changes of its lanes that a stage remembers
    """

    def __init__(self, me: Peer, *, replicas: int, num_micro_batches: int, keep: int) -> None:
        self.me, self._replicas, self._num_micro_batches, self.changes_kept = me, replicas, num_micro_batches, keep
        self._peers: dict[str, Peer] = {me.name: me}
        self._by_stage: dict[int, dict[str, Peer]] = {me.stage: {me.name: me}}
        # Asked for with every message; those of a stage are made anew when it has changed.
        self._in_order: dict[int, list[Peer]] = {}
        self._by_slot: dict[int, dict[int, dict[int, Peer]]] = {}
        self._lost: dict[str, int] = {}
        self._lanes: dict[int, Lanes] = {}

    def get(self, name: str) -> Peer | None:
        return self._peers.get(name)

    def is_live(self, name: str) -> bool:
        """Whether `name` has said hello and is not known to be gone."""
        peer = self._peers.get(name)
        return peer is not None and peer.is_met

    def has_met(self, name: str, incarnation: int) -> bool:
        """Whether that incarnation has said hello, or is known to be gone."""
        return (self.is_live(name) and self._peers[name].incarnation >= incarnation) or self.is_lost(name, incarnation)

    def is_lost(self, name: str, incarnation: int) -> bool:
        """Whether that incarnation, which may never have said hello, is known to be gone."""
        return self._lost.get(name, -1) >= incarnation

    def add(self, peer: Peer) -> bool:
        """Add or update `peer`; False for an incarnation that is known to be lost or older than the present one.

        What others said of one that is not met gives way to its own word.
        """
        known = self._peers.get(peer.name)
        if self.is_lost(peer.name, peer.incarnation):
            return False
        if known is not None and known.incarnation > peer.incarnation and (known.is_met or not peer.is_met):
            return False
        if known is not None and known.stage != peer.stage:
            del self._by_stage[known.stage][known.name]
            self._forget(known.stage)
        self._put(peer)
        if peer.stage != self.me.stage and peer.since is not None:
            self._expect_lane(peer.stage, peer.replica, peer.since)
        return True

    def remove(self, name: str, incarnation: int) -> Peer | None:
        """Remove that incarnation; return it if it was live, None if it was gone or replaced already."""
        self._lost[name] = max(incarnation, self._lost.get(name, -1))
        peer = self._peers.get(name)
        if peer is None or peer.incarnation > incarnation:
            return None
        self._forget(peer.stage)
        del self._by_stage[peer.stage][name]
        return self._peers.pop(name)

    def forget(self, name: str) -> None:
        """Remove a worker that was not met, as if nobody had told of it."""
        peer = self._peers.pop(name)
        del self._by_stage[peer.stage][name]
        self._forget(peer.stage)

    @property
    def unmet(self) -> list[Peer]:
        """The workers that others told of, and that have not said hello."""
        return [peer for peer in self._peers.values() if not peer.is_met]

    def _put(self, peer: Peer) -> None:
        self._peers[peer.name] = self._by_stage.setdefault(peer.stage, {})[peer.name] = peer
        self._forget(peer.stage)

    def _forget(self, stage: int) -> None:
        self._in_order.pop(stage, None)
        self._by_slot.pop(stage, None)

    def stage(self, stage: int) -> list[Peer]:
        """Return the live workers of `stage` in slot order, joining ones included."""
        return list(self._ordered(stage))

    def _ordered(self, stage: int) -> list[Peer]:
        if (peers := self._in_order.get(stage)) is None:
            peers = sorted(self._by_stage.get(stage, {}).values(), key=lambda peer: peer.replica)
            self._in_order[stage] = peers
        return peers

    def others(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.name != self.me.name]

    def promote(self, name: str, since: int | None) -> None:
        """Note that `name` takes work from round `since`, or with None that it is joining."""
        self._put(replace(self._peers[name], since=since, is_awaited=False))

    def await_from(self, name: str, since: int) -> None:
        """Note that another stage admits `name`: it is dealt work from round `since` on, and does it when it has the state."""
        peer = self._peers[name]
        self._put(replace(peer, since=since, is_awaited=True))
        self._expect_lane(peer.stage, peer.replica, since)

    def ready(self, stage: int, round_: int) -> list[str]:
        """Return the names of those of `serving` who have the state."""
        return [peer.name for peer in self.serving(stage, round_) if not peer.is_awaited]

    def serving(self, stage: int, round_: int) -> list[Peer]:
        """Return the live workers of `stage` that take work of `round_`."""
        return [peer for peer in self._ordered(stage) if peer.since is not None and peer.since <= round_]

    def _slots(self, stage: int, round_: int) -> dict[int, Peer]:
        """Return `serving` by slot."""
        rounds = self._by_slot.setdefault(stage, {})
        if round_ not in rounds:
            if len(rounds) > ROUNDS_KEPT:
                rounds.clear()
            rounds[round_] = {peer.replica: peer for peer in self.serving(stage, round_)}
        return rounds[round_]

    def lanes(self, stage: int) -> Lanes:
        """Return the lanes of `stage`: for the own one what its replicas agreed on, for others what was heard of them."""
        if stage not in self._lanes:
            slots = range(self._replicas)
            self._lanes[stage] = Lanes(stage, self._num_micro_batches, [(0, tuple((slot, 0, None) for slot in slots))])
        return self._lanes[stage]

    def set_lanes(self, stage: int, since: int, table: Table) -> None:
        """Note the lanes of `stage` from round `since` on; older news than what is known changes nothing."""
        lanes = self.lanes(stage)
        if since >= lanes.tables[-1][0]:
            lanes.change(since, table, keep=self.changes_kept)

    def take_over_lanes(self, stage: int, tables: tuple[tuple[int, Table], ...]) -> None:
        """Deal in `stage` as whoever sent `tables` does, and to who is there of another stage and has no lane in them yet."""
        self._lanes[stage] = Lanes(stage, self._num_micro_batches, list(tables))
        for peer in self._ordered(stage) if stage != self.me.stage else ():
            if peer.since is not None:
                self._expect_lane(stage, peer.replica, peer.since)

    def _expect_lane(self, stage: int, slot: int, since: int) -> None:
        """Deal to a worker of another stage that says it takes part, before that stage's next step tells of its lane."""
        if stage not in self._lanes and slot < self._replicas:
            return  # it has a lane of those that the spec names
        newest, table = self.lanes(stage).tables[-1]
        if slot not in [known for known, *_ in table]:
            self.set_lanes(stage, max(newest, since), tuple(sorted([*table, (slot, since, None)])))

    def serve(self, *, stage: int, round_: int, index: int, among: Collection[str] | None = None) -> Peer | None:
        """Return the live worker who serves micro-batch `index` of `round_` at `stage`, None when there is none.

        The worker of its lane, or who takes over from it. One who takes part but has no lane yet, as far as is known here, is
        asked last. `among`: of these workers alone.
        """
        by_slot = self._slots(stage, round_)
        if among is not None:
            by_slot = {slot: peer for slot, peer in by_slot.items() if peer.name in among}
        if not by_slot:
            return None
        turns = self.lanes(stage).turns(round_, index)
        return next((by_slot[slot] for slot in turns if slot in by_slot), by_slot[min(by_slot)])
