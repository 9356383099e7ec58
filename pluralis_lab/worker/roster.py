"""Who takes part, as one worker sees it, and who serves which micro-batch."""

from collections.abc import Iterable
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
    """The live workers, by stage. Slots are fixed by the spec; who fills them changes."""

    def __init__(self, me: Peer, *, replicas: int) -> None:
        self.me, self.replicas = me, replicas
        self._peers: dict[str, Peer] = {me.name: me}
        self._lost: dict[str, int] = {}

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

    def serving(self, stage: int, round_: int) -> list[Peer]:
        """Return the live workers of `stage` that take work of `round_`."""
        return [peer for peer in self.stage(stage) if peer.since is not None and peer.since <= round_]


def pick(candidates: Iterable[Peer], *, stage: int, round_: int, index: int, replicas: int) -> Peer | None:
    """Return who serves micro-batch `index` of `round_` at `stage`: the slot of its lane, or the next live one after it.

    Lanes shift by the stage's number every round, so that neighbours who counter-sign each other's work change. The rule
    uses no state but who is live, hence all workers that agree on that agree on the route.
    """
    by_slot = {peer.replica: peer for peer in candidates}
    if not by_slot:
        return None
    first = (index + stage * round_) % replicas
    return next((by_slot[slot] for slot in ((first + step) % replicas for step in range(replicas)) if slot in by_slot), None)
