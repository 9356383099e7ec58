"""The exchange between replicas that train on their own (`DiLoCo`, `SliceSync`): begun after a round, merged some rounds later.

After every so many rounds each replica sends its displacement to the others and goes on training. All move by the same set of
displacements, after the same round, so that what they have in common stays common to the bit. How the set is agreed on is as
in `Commit`: what one has announced it never takes back for a smaller one, everybody moves to the largest that a live one has
announced, and who has decided tells the others. A displacement that cannot be computed with (NaN, say) is found before it is
announced, from its bytes alone, and passed over as if it had never come; its author is expelled.

How many rounds an exchange may take follows from the one before: each replica says with its displacement how long that took
it, and the largest of these wishes holds for all. Who is not ready by then is waited for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pluralis_lab.errors import RunError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.local_sync import is_exchanged
from pluralis_lab.worker.countersigning import sign_displacements
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import Displacement, FetchDisplacement, Gathered, Item, Merged, displacement_digest
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import Part, Parts, RoundState


@dataclass
class _Exchange:
    """One exchange at one replica.

    participants : replicas whose displacement is waited for; None until it has begun here
    own : what this replica counted on the way, by round; held : displacements by (worker, digest), the first of each in `first`
    unusable : those that cannot be computed with; measured : what was found of sets of them; measuring : the set asked of last
    gathered : announced here, and `peers_gathered` by live replica
    decisions : what each replica says that it is made of; decided : what it is made of, which is here and measured when `is_told`
    apply_at : steps after which it is merged; waited : whether training had to wait for it
    """

    round: int
    participants: set[str] | None = None
    own: dict[int, tuple[int, ...]] = field(default_factory=dict)
    held: dict[Part, Displacement] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    is_displaced: bool = False
    unusable: set[Part] = field(default_factory=set)
    measuring: Parts = ()
    measured: dict[Parts, tasks.InspectDone] = field(default_factory=dict)
    gathered: Parts | None = None
    peers_gathered: dict[str, Parts] = field(default_factory=dict)
    fetching: set[tuple[str, Part]] = field(default_factory=set)
    decisions: dict[str, Parts] = field(default_factory=dict)
    decided: Parts | None = None
    is_told: bool = False
    apply_at: int = 0
    waited: bool = False
    is_merging: bool = False
    is_merged: bool = False


class Exchanges:
    """Begins, agrees on and merges a replica's exchanges. At most one is under way.

    on_step : called with (round's state, digest or None) when the round's step and all that is due after it are made
    """

    def __init__(self, desk: Desk, on_step: Callable[[RoundState, str | None], None]) -> None:
        self.desk, self._on_step = desk, on_step
        self.settled = desk.round
        """Rounds whose work every replica here has got or lost for good: their receipts are written."""
        self._exchanges: dict[int, _Exchange] = {}
        self._pending: _Exchange | None = None
        self._stepping: tuple[RoundState, str | None] | None = None
        self._ledger: dict[int, dict[str, tuple[int, ...]]] = {}
        self._own: dict[int, tuple[int, ...]] = {}
        self._lag = self._wish = 1

    def mark(self) -> tasks.SyncMark | None:
        """Return where this replica stands, for a checkpoint; None where every round is exchanged."""
        if not self.desk.is_local:
            return None
        pending, own = self._pending, dict(self._own)
        if pending is not None:
            own |= pending.own
        counted = tuple((round_, index) for round_, indices in sorted(own.items()) for index in indices)
        begun, apply_at = (None, 0) if pending is None else (pending.round, pending.apply_at)
        return tasks.SyncMark(counted, begun, apply_at, self._lag)

    def restore(self, mark: tasks.SyncMark | None, *, is_own: bool) -> None:
        """Go on from a checkpoint: from this replica's own, or as a joiner from another's, whose work is not this one's."""
        if mark is None:
            return
        desk = self.desk
        self._lag = self._wish = mark.lag
        own: dict[int, list[int]] = {}
        for round_, index in mark.counted if is_own else ():
            own.setdefault(round_, []).append(index)
        begun = -1 if mark.begun is None else mark.begun
        self._own = {round_: tuple(indices) for round_, indices in own.items() if round_ > begun}
        self.settled = desk.round
        if mark.begun is None:
            return
        x = self._pending = self._of(begun)
        x.apply_at = mark.apply_at
        x.participants = {peer.name for peer in desk.mates(desk.round)} if is_own else set()
        if is_own:
            x.own = {round_: tuple(indices) for round_, indices in own.items() if round_ <= begun}
            self.settled = min([begun + 1, *x.own])
            desk.compute(tasks.Displace(begun, again=True))
        else:
            x.is_displaced = True
            self._advance(x)

    def on_local_step(self, state: RoundState, digest: str | None) -> None:
        """The round's step is made: merge and begin what is due, then go on to the next round."""
        assert state.applying is not None
        parts = {worker: tuple(state.contributions[worker, digest].item["indices"]) for worker, digest in state.applying.parts}
        self._ledger[state.round] = parts
        if self.desk.me.name in parts:
            self._own[state.round] = parts[self.desk.me.name]
        self._stepping = (state, digest)
        self._settle()
        if self._stepping is not None:  # it waits for the others, who must learn that it has stepped, and with whom
            self.desk.broadcast(self.desk.mates(state.round), state.applying)

    def on_displaced(self, task: tasks.Displace, done: tasks.DisplaceDone) -> None:
        desk, x = self.desk, self._exchanges[task.round]
        items = tuple((round_, self._item(round_, indices, done)) for round_, indices in sorted(x.own.items()))
        digest = displacement_digest(self._wish, sorted(x.own.items()), done.payload)
        me = desk.me
        seal = desk.signing.sign_work(desk.key, desk.run_id, task.round, "local_step", me.stage, me.name, [], 0, digest)
        message = Displacement(task.round, me.name, self._wish, items, seal, done.payload)
        self._keep(x, message)
        x.is_displaced = True
        desk.broadcast(desk.mates(desk.round), message)
        self._advance(x)

    def on_displacement(self, source: str, message: Displacement) -> None:
        if (x := self._open(message.round)) is not None:
            self._keep(x, message)
            self._advance(x)

    def on_gathered(self, source: str, message: Gathered) -> None:
        if (x := self._open(message.round)) is None:
            return
        x.peers_gathered[source] = message.parts
        if x.decided is not None and x.is_told:
            self.desk.send(source, Merged(x.round, x.decided))
        self._advance(x)

    def on_merged(self, source: str, message: Merged) -> None:
        if (x := self._open(message.round)) is not None:
            x.decisions.setdefault(source, message.parts)
            self._advance(x)

    def on_fetch(self, source: str, message: FetchDisplacement) -> None:
        x = self._exchanges.get(message.round)
        for (worker, _), held in x.held.items() if x is not None else ():
            if worker == message.worker:
                self.desk.send(source, held)

    def on_peer_found(self, peer: Peer) -> None:
        """Tell a replica that has just begun what it may have missed."""
        if peer.stage != self.desk.me.stage or peer.since is None:
            return
        for x in self._exchanges.values():
            if x.decided is not None and x.is_told:
                self.desk.send(peer.name, Merged(x.round, x.decided))
            elif x.gathered is not None:
                self.desk.send(peer.name, Gathered(x.round, x.gathered))

    def on_peer_lost(self, lost: Peer) -> None:
        """Go on without the dead replica; what it sent to somebody is still taken in."""
        if lost.stage != self.desk.me.stage:
            return
        for x in list(self._exchanges.values()):
            x.peers_gathered.pop(lost.name, None)
            if x.participants is not None:
                x.participants.discard(lost.name)
            x.fetching = {(holder, part) for holder, part in x.fetching if holder != lost.name}
            x.decisions.pop(lost.name, None)  # what is not here nobody that lives has merged: it would have said so
            self._advance(x)

    def on_measured(self, task: tasks.Measure, done: tasks.InspectDone) -> None:
        x = self._exchanges[task.round]
        if done.unusable:
            x.measuring = ()
        else:
            x.measured[task.parts] = done
        for worker, reason in done.unusable.items():
            if worker == self.desk.me.name:
                raise RunError(f"{reason}; it was found sound before it was sent: report this as a bug")
            part = (worker, dict(task.parts)[worker])
            x.unusable.add(part)
            self._drop(x, part)
            self.desk.expel_live(worker, reason)
        self._advance(x)

    def on_merge_done(self, task: tasks.Merge, done: tasks.ApplyDone) -> None:
        desk, x = self.desk, self._exchanges[task.round]
        assert self._stepping is not None
        assert x.decided is not None
        x.is_merged, self._pending = True, None
        self.settled = x.round + 1
        observed = {}
        if x.decided:
            found = x.measured[x.decided]
            observed = {name: [found.norms[name], found.agreements[name]] for name, _ in x.decided}
            self._lag = max(1, *(x.held[part].wish for part in x.decided))
        desk.report("exchange", round=x.round, late=x.apply_at - x.round - 1, waited=x.waited, observed=observed)
        state, digest = self._stepping
        self._stepping = (state, done.state_digest or digest)
        self._settle()

    def _settle(self) -> None:
        """Do what is due at the end of the round that was stepped last, and report the step when nothing is left to do."""
        if self._stepping is None:
            return
        desk = self.desk
        state, digest = self._stepping
        steps = state.round + 1
        x = self._pending
        if x is None and is_exchanged(desk.spec, state.round) and state.round not in self._begun():
            x = self._begin(state.round)
        if x is None or x.apply_at > steps:
            self._stepping = None
            self._on_step(state, digest)
        elif x.decided is None or not x.is_told:
            if not x.waited:
                x.waited = True
                self._advance(x)
        elif not x.is_merging:
            x.is_merging = True
            desk.compute(tasks.Merge(x.round, self._shares(x, x.decided), wants_digest=digest is not None))

    def _begun(self) -> set[int]:
        return {round_ for round_, x in self._exchanges.items() if x.participants is not None}

    def _begin(self, round_: int) -> _Exchange:
        """Begin the exchange after `round_`, which the weights have just reached."""
        desk, spec = self.desk, self.desk.spec
        for old in [number for number in self._exchanges if number < round_ - (spec.sync_every or 0)]:
            del self._exchanges[old]
        for old in [number for number in self._ledger if number <= round_ - (spec.sync_every or 0)]:
            del self._ledger[old]
        x = self._pending = self._of(round_)
        is_last = round_ + 1 == spec.steps
        lag = 0 if is_last or not getattr(spec.sync, "overlap", True) else min(self._lag, spec.sync_every or 1)
        x.apply_at = min(round_ + 1 + lag, spec.steps)
        x.participants = {peer.name for peer in desk.mates(round_)}
        x.own, self._own = self._own, {}
        desk.compute(tasks.Displace(round_))
        return x

    def _advance(self, x: _Exchange) -> None:
        """Do the next thing that brings this exchange to its end."""
        if x.participants is None or not x.is_displaced or x.is_merging:
            return
        self._refuse_false(x)
        if x.decided is None:
            elsewhere = self._decided_elsewhere(x)
            x.decided = self._agreed(x) if elsewhere is None else elsewhere
        if x.decided is None or not self._is_measured(x, x.decided):
            return
        if not x.is_told:
            x.is_told = True
            self._wish = self._next_wish(x)
            self._tell(Merged(x.round, x.decided))
            if x.decided:
                sign_displacements(self.desk, [x.held[part] for part in x.decided], x.measured[x.decided])
        self._settle()

    def _is_measured(self, x: _Exchange, parts: Parts) -> bool:
        """Say whether `parts`, which are here, are measured, and so can be computed with; measure them if not."""
        if parts and parts not in x.measured and x.measuring != parts:
            x.measuring = parts
            self.desk.compute(tasks.Measure(x.round, self._shares(x, parts), parts))
        return not parts or parts in x.measured

    def _next_wish(self, x: _Exchange) -> int:
        """Return the rounds this replica would give the next exchange: twice as many if it had to wait, else what it took.

        One more where that is not the least, so that a slower round makes nobody wait; and at most one less than before, since
        another stage that waits makes rounds longer, and this exchange look faster than it is.
        """
        took = max(1, self.desk.round - x.round)
        wish = 2 * self._lag if x.waited else max(took + (took > 1), self._lag - 1)
        return min(wish, self.desk.spec.sync_every or 1)

    def _decided_elsewhere(self, x: _Exchange) -> Parts | None:
        """Return what another replica has decided on, if it is here and can be computed with."""
        for name, parts in sorted(x.decisions.items()):
            if self._may_take(x, parts, name) and self._is_measured(x, parts):
                return parts
        return None

    def _agreed(self, x: _Exchange) -> Parts | None:
        """Announce the largest set that is here, and return it when all live replicas have announced the same."""
        desk = self.desk
        mates = [peer.name for peer in desk.mates(desk.round)]
        candidates: list[Parts] = []
        if x.gathered is not None:
            candidates.append(x.gathered)
        elif all(name in x.first for name in x.participants or set()):
            candidates.append(tuple(sorted(x.first.items())))
        candidates += [parts for name, parts in sorted(x.peers_gathered.items()) if self._may_take(x, parts, name)]
        if not candidates:
            return None
        chosen = max(candidates, key=lambda parts: (len(parts), parts))
        if not self._is_measured(x, chosen):
            return None
        if x.gathered != chosen:
            x.gathered = chosen
            self._tell(Gathered(x.round, chosen))
        return chosen if all(x.peers_gathered.get(name) == chosen for name in mates) else None

    def _may_take(self, x: _Exchange, parts: Parts, holder: str) -> bool:
        """Whether `parts` are here; `holder`, who stands by them, is given up where they cannot be computed with."""
        if any(part in x.unusable for part in parts):
            self.desk.expel_live(holder, f"made an exchange after round {x.round} with what cannot be computed with")
            return False
        return self._fetched(x, parts, holder)

    def _refuse_false(self, x: _Exchange) -> None:
        """Give up who claims another work in its displacement than what the replicas agreed on at the rounds' steps."""
        for part, held in list(x.held.items()):
            false = [
                round_
                for round_, item in held.items
                if round_ in self._ledger and self._ledger[round_].get(held.worker, ()) != tuple(item["indices"])
            ]
            if false:
                self.desk.expel_live(held.worker, f"claims work in round {false[0]} that it did not step with")
                self._drop(x, part)

    def _fetched(self, x: _Exchange, parts: Parts, holder: str) -> bool:
        """Whether the displacements `parts` are here; those that are not are asked for, once of each holder.

        What is on its way from its author is large, and would come twice: it is asked for when training waits for it, of one.
        """
        missing = [part for part in parts if part not in x.held]
        for part in missing:
            author = part[0]
            comes = author in (x.participants or set()) and author not in x.first
            is_asked = any(wanted == part and of != author for of, wanted in x.fetching)
            if (holder, part) not in x.fetching and not (comes and (is_asked or not x.waited)):
                x.fetching.add((holder, part))
                self.desk.send(holder, FetchDisplacement(x.round, author))
        return not missing

    @staticmethod
    def _drop(x: _Exchange, part: Part) -> None:
        x.held.pop(part, None)
        if x.first.get(part[0]) == part[1]:
            del x.first[part[0]]

    def _keep(self, x: _Exchange, message: Displacement) -> None:
        part = (message.worker, message.digest)
        if part not in x.held and part not in x.unusable:
            x.held[part] = message
            x.first.setdefault(*part)

    def _shares(self, x: _Exchange, parts: Parts) -> tuple[tasks.Share, ...]:
        held = [x.held[part] for part in parts]
        return tuple(tasks.Share(one.worker, sum(len(item["indices"]) for _, item in one.items), one.payload) for one in held)

    def _item(self, round_: int, indices: tuple[int, ...], done: tasks.DisplaceDone) -> Item:
        return self.desk.sign("contribution", round_, list(indices), done.payload)

    def _of(self, round_: int) -> _Exchange:
        return self._exchanges.setdefault(round_, _Exchange(round_))

    def _open(self, round_: int) -> _Exchange | None:
        """Return the exchange after `round_`, unless it is over: whoever is still in it is told by those who merged it."""
        newest = max(self._begun(), default=-1)
        return None if round_ < newest and round_ not in self._exchanges else self._of(round_)

    def _tell(self, message: Gathered | Merged) -> None:
        """Send to all replicas of this stage that have its state."""
        self.desk.broadcast([peer for peer in self.desk.roster.stage(self.desk.me.stage) if peer.since is not None], message)
