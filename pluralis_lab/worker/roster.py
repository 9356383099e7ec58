"""Who takes part, as one worker sees it, and who serves which micro-batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Peer:
    """A worker as others know it.

    name, stage, replica : its slot in the run; `incarnation` counts the restarts of that slot
    key : address of the hot key that signs its work
    since : first round it takes work in; None while it joins
    """

    name: str
    stage: int
    replica: int
    key: str
    incarnation: int = 0
    since: int | None = 0


class Roster:
    """The live workers, by stage, and the lanes of each: slots that micro-batches are dealt out to.

    A slot of the spec is a lane from the beginning, one that was attached later from the round at which it was first admitted. A
    lane stays when its worker dies; so the lanes of a round do not depend on who lives, and a death moves nobody else's work.
    """

    def __init__(self, me: Peer, *, replicas: int) -> None:
        self.me, self.replicas = me, replicas
        self._peers: dict[str, Peer] = {me.name: me}
        self._lost: dict[str, int] = {}
        self._attached: dict[tuple[int, int], int] = {}
        self._note_lane(me)

    def get(self, name: str) -> Peer | None:
        return self._peers.get(name)

    def is_live(self, name: str) -> bool:
        return name in self._peers

    def add(self, peer: Peer) -> bool:
        """Add or update `peer`; False for an incarnation that is known to be lost or older than the present one."""
        known = self._peers.get(peer.name)
        if peer.incarnation <= self._lost.get(peer.name, -1) or (known is not None and known.incarnation > peer.incarnation):
            return False
        self._peers[peer.name] = peer
        self._note_lane(peer)
        return True

    def remove(self, name: str, incarnation: int) -> Peer | None:
        """Remove that incarnation; return it if it was live, None if it was gone or replaced already."""
        self._lost[name] = max(incarnation, self._lost.get(name, -1))
        peer = self._peers.get(name)
        if peer is None or peer.incarnation > incarnation:
            return None
        return self._peers.pop(name)

    def stage(self, stage: int) -> list[Peer]:
        """Return the live workers of `stage` in slot order, joining ones included."""
        return sorted((peer for peer in self._peers.values() if peer.stage == stage), key=lambda peer: peer.replica)

    def others(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.name != self.me.name]

    def promote(self, name: str, since: int | None) -> None:
        """Note that `name` takes work from round `since`, or with None that it is joining."""
        self._peers[name] = replace(self._peers[name], since=since)
        self._note_lane(self._peers[name])

    def serving(self, stage: int, round_: int) -> list[Peer]:
        """Return the live workers of `stage` that take work of `round_`."""
        return [peer for peer in self.stage(stage) if peer.since is not None and peer.since <= round_]

    def lanes(self, stage: int, round_: int) -> list[int]:
        """Return the slots that micro-batches of `round_` are dealt out to at `stage`."""
        attached = sorted(slot for (of, slot), since in self._attached.items() if of == stage and since <= round_)
        return [*range(self.replicas), *attached]

    def attached_lanes(self, stage: int) -> tuple[tuple[int, int], ...]:
        """Return the lanes of `stage` that the spec does not name, with the round from which on each is one."""
        return tuple(sorted((slot, since) for (of, slot), since in self._attached.items() if of == stage))

    def add_lane(self, stage: int, slot: int, since: int) -> None:
        """Note that `slot` is a lane of `stage` from round `since` on, whoever sits there."""
        if slot >= self.replicas:
            self._attached[stage, slot] = min(since, self._attached.get((stage, slot), since))

    def serve(self, *, stage: int, round_: int, index: int) -> Peer | None:
        """Return the live worker who serves micro-batch `index` of `round_` at `stage`, None when there is none."""
        lanes = self.lanes(stage, round_)
        return pick(self.serving(stage, round_), lanes=lanes, stage=stage, round_=round_, index=index)

    def _note_lane(self, peer: Peer) -> None:
        if peer.since is not None:
            self.add_lane(peer.stage, peer.replica, peer.since)


def pick(candidates: Iterable[Peer], *, lanes: Sequence[int], stage: int, round_: int, index: int) -> Peer | None:
    """Return who serves micro-batch `index` of `round_` at `stage`: the slot of its lane, or the next live one after it.

    Lanes shift by the stage's number every round, so that neighbours who counter-sign each other's work change. The rule
    uses no state but the lanes and who is live, hence all workers that agree on those agree on the route.

    lanes : slots, in order; `Roster.lanes`
    """
    by_slot = {peer.replica: peer for peer in candidates}
    if not by_slot:
        return None
    first = index + stage * round_
    turns = (lanes[(first + step) % len(lanes)] for step in range(len(lanes)))
    return next((by_slot[slot] for slot in turns if slot in by_slot), None)
