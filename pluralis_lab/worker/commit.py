"""How the replicas of a stage make the same step: who counted what, whose contributions are in, and when to apply them.

`FullSync` over `gather` (algorithms.md, "Sync inside a stage"): every replica receives every contribution and steps when all
live ones have announced the same set. What a replica has announced it never takes back for a smaller one (`Parts` are compared
as tuples), and everybody moves to the largest set that a live replica has announced; so all that step make the same step.

What cannot be computed with (NaN, say) is found before anybody announces it, by everybody who holds it, from its bytes alone. Its
author is expelled, and the set is passed over as if that contribution had never come: who has not got it hears that its author is
gone, and waits for it no more than who has.

A stage steps after the stage before it, so that whoever may still need a gradient of the round finds somebody who can recompute
it with the round's weights; and when all of the next stage hold its contributions, so that a worker that dies there does not
need an activation again which only a worker that died here can send.

Under ``schedule="async"`` the first of the two is left out: stages do not wait for those before them, and a gradient that is
still needed there after the step is computed for it with later weights (`Flow.on_activation`).

Over `butterfly` nobody holds all contributions, but everybody what they add up to (`Butterfly`); the rest is the same.

With `DiLoCo` and `SliceSync` all of this holds for who counted what; but a contribution is then only a commitment to a sum that
stays where it is, each replica steps with its own, and what they exchange is another matter (`Exchanges`).
"""

from collections.abc import Callable

from pluralis_lab.contributions.receipts import ItemKind
from pluralis_lab.errors import RunError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.payload import Payload
from pluralis_lab.worker.butterfly import Butterfly
from pluralis_lab.worker.countersigning import sign_contributions, sign_neighbours
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.lanes import LEAVING
from pluralis_lab.worker.messages import Committed, Contribution, Counted, Fetch, Have
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import Joiners, Part, Parts, RoundState


class Commit:
    """Brings a round to its step.

    on_step : called with (round's state, digest of the weights or None) when the new weights are there
    may_step : asked before this worker agrees to a step; a change to True is followed by `advance`
    """

    def __init__(
        self, desk: Desk, on_step: Callable[[RoundState, str | None], None], *, may_step: Callable[[RoundState], bool]
    ) -> None:
        self.desk, self._on_step, self._may_step = desk, on_step, may_step
        self.waiting_joiners: dict[str, tuple[int, bool]] = {}
        """Who asked to be let in: incarnation, and whether it is on trial."""
        self.butterfly = Butterfly(desk, self.advance) if desk.spec.is_butterfly else None

    def on_counted_here(self, state: RoundState) -> None:
        self._tell_counted(state)
        self.advance(state)

    def _tell_counted(self, state: RoundState) -> None:
        """Tell the other replicas what is counted here, unless more of it is being computed: one word then tells of all."""
        under_way = (state.begun if self.desk.is_tail else state.accepted) - state.counted - state.passed_on
        if state.counted != state.told and not under_way:
            state.told = frozenset(state.counted)
            self._tell(Counted(state.round, tuple(sorted(state.counted))))

    def on_counted(self, source: str, message: Counted) -> None:
        if not self._is_settled(source, message.round):
            state = self.desk.current()
            state.peers_counted[source] = set(message.indices)
            self.advance(state)

    def on_contribution(self, source: str, message: Contribution) -> None:
        """Keep a contribution, from its author or relayed by a replica that has it."""
        desk, part = self.desk, (message.worker, message.payload.digest)
        if message.worker == desk.me.name:
            return  # it has its own; one that it signed in an earlier life is over other micro-batches, and not its sum
        if self._is_settled(source, message.round):
            return
        state = desk.current()
        if part in state.unusable:
            return
        state.contributions[part] = message
        if sum(worker == message.worker for worker, _ in state.contributions) > desk.spec.num_micro_batches:
            # Each of an honest worker's sums is over more micro-batches than the one before.
            desk.expel_live(message.worker, f"signed more sums in round {state.round} than there are micro-batches")
        self.advance(state)

    def on_have(self, source: str, message: Have) -> None:
        desk = self.desk
        if desk.seats[source][0] != desk.me.stage:
            if (state := desk.rounds.get(message.round)) is not None:
                state.next_haves[source] = message.joiners
                if state.have is not None or state.decided is not None:  # until then it changes nothing here
                    self.advance(state)
        elif not self._is_settled(source, message.round):
            state = desk.current()
            state.haves[source] = message
            if self.butterfly is not None:
                self.butterfly.on_have(source, message)
            self.advance(state)

    def on_fetch(self, source: str, message: Fetch) -> None:
        state = self.desk.rounds.get(message.round)
        if state is not None:
            for (worker, _), held in state.contributions.items():
                if worker == message.worker:
                    self.desk.send(source, held)

    def on_committed(self, source: Peer, message: Committed) -> None:
        """A neighbour stage or a replica has made the step."""
        desk = self.desk
        if source.stage == desk.me.stage + 1:
            desk.roster.set_lanes(source.stage, desk.dealt_from(source.stage, message.round), message.lanes)
        state = desk.rounds.get(message.round)
        if state is None:
            return
        is_news = True
        if source.stage == desk.me.stage:
            state.peers_committed.add(source.name)
            if message.round == desk.round and message.parts:
                state.decisions.setdefault(source.name, message)
        elif source.stage == desk.me.stage - 1:
            is_news, state.previous_committed = not state.previous_committed, True
        else:
            state.next_committed = True
            state.next_stepped.add(source.name)
        if is_news:  # the whole stage before says the same
            self.advance(state)
        desk.retire_rounds()

    def on_peer_found(self, peer: Peer) -> None:
        """Tell a worker that has just joined what it has missed of the round: it may have been no member when this was sent."""
        desk, state = self.desk, self.desk.current()
        if peer.stage == desk.me.stage and peer.since is not None:
            for ahead in sorted(number for number in desk.rounds if number >= max(state.round, peer.since)):
                desk.send(peer.name, Counted(ahead, tuple(sorted(desk.rounds[ahead].counted))))
        if peer.since is None or peer.since > state.round:
            self.advance(state)  # it may have been the joiner that a replica knew before
            return
        if peer.stage == desk.me.stage:
            for (worker, _), contribution in state.contributions.items():
                if worker == desk.me.name:
                    desk.send(peer.name, contribution)
        if self.butterfly is not None:
            self.butterfly.on_peer_found(peer)
        if state.have is not None and peer.stage in (desk.me.stage - 1, desk.me.stage):
            desk.send(peer.name, state.have)

    def on_peer_lost(self, lost: Peer) -> None:
        """Go on without the dead worker: what a replica counted is counted anew, unless its contribution was agreed on."""
        self.waiting_joiners.pop(lost.name, None)
        state = self.desk.current()
        state.peers_counted.pop(lost.name, None)
        state.haves.pop(lost.name, None)
        state.next_haves.pop(lost.name, None)
        state.next_stepped.discard(lost.name)
        state.fetching = {(holder, part) for holder, part in state.fetching if holder != lost.name}
        if self.butterfly is not None:
            self.butterfly.on_peer_lost(lost)
        self.advance(state)
        self.desk.retire_rounds()

    def on_collect_done(self, task: tasks.Collect, done: tasks.CollectDone) -> None:
        desk, state = self.desk, self.desk.rounds[task.round]
        sign_neighbours(desk, state)  # whoever has this contribution can use it, even if this worker dies
        kind: ItemKind = "local_step" if desk.is_local else "contribution"
        item = desk.sign(kind, task.round, list(task.indices), done.gradient)
        loss = sum(state.loss[index] for index in task.indices) if desk.is_tail else None
        message = Contribution(
            task.round, desk.me.name, loss, LEAVING if desk.is_leaving else desk.pace.level(), item, done.gradient
        )
        state.contributions[desk.me.name, done.gradient.digest] = message
        state.delay, state.norm = done.delay, done.norm
        self._tell(message)
        if self.butterfly is not None:
            self.butterfly.on_collected(state, done.gradient.digest, done.pieces)
        self.advance(state)

    def on_inspect_done(self, task: tasks.Inspect, done: tasks.InspectDone) -> None:
        state = self.desk.rounds[task.round]
        parts = tuple((part.worker, part.gradient.digest) for part in task.parts)
        if task.sums != self._sums(state, parts):
            return  # one of them was false, and has been corrected
        if done.unusable:
            self._pass_over(state, {part: done.unusable[part[0]] for part in parts if part[0] in done.unusable})
        elif done.false_sums:
            assert self.butterfly is not None
            self.butterfly.on_false_sums(state, parts, done.false_sums)
        else:
            state.inspected = (parts, done)
        self.advance(state)

    def _pass_over(self, state: RoundState, unusable: dict[Part, str]) -> None:
        """Expel the authors of contributions that cannot be computed with, and go on as if these had never come."""
        state.inspecting = None
        for part, reason in unusable.items():
            if part[0] == self.desk.me.name:
                raise RunError(f"{reason}; it was found sound before it was sent: report this as a bug")
            state.unusable.add(part)
            state.contributions.pop(part, None)
            self.desk.expel_live(part[0], reason)

    def on_apply_done(self, task: tasks.Apply | tasks.LocalStep, done: tasks.ApplyDone) -> None:
        state = self.desk.rounds[task.round]
        state.is_committed = True
        self._on_step(state, done.state_digest)

    def advance(self, state: RoundState) -> None:
        """Do the next thing that brings this round to its step, if its turn has come."""
        desk = self.desk
        if state.applying is not None or state.round != desk.round or desk.state != "active":
            return
        self._tell_counted(state)  # what it was kept back for may have been refused
        parts = self._next_parts(state)
        if parts is None or not self._inspected(state, parts):
            return
        if state.decided is not None and state.decided.parts == parts:
            if self._have_met(state.decided.joiners) and self._is_next_safe(state):
                self._apply(state, state.decided)
            return
        if not self._may_step(state):
            return
        joiners = self._next_joiners(state)
        if not self._have_met(joiners):
            return
        sums = "" if self.butterfly is None else self.butterfly.digest_of(state, parts)
        if state.have is None or (state.have.parts, state.have.joiners, state.have.sums) != (parts, joiners, sums):
            sign_neighbours(desk, state)
            state.have = Have(state.round, parts, joiners, sums)
            self._tell(state.have)
            desk.broadcast(desk.roster.stage(desk.me.stage - 1), state.have)
        if any(state.haves.get(peer.name) != state.have for peer in desk.mates(state.round)):
            others = {name: have.sums for name, have in state.haves.items() if have.parts == parts and have.sums != sums}
            if self.butterfly is not None and others:
                self.butterfly.settle(state, parts, others)
            return
        if (desk.is_head or desk.spec.is_async or state.previous_committed) and self._is_next_safe(state):
            self._apply(state, Committed(state.round, parts, joiners))

    def _apply(self, state: RoundState, decision: Committed) -> None:
        desk = self.desk
        state.applying = decision
        ends_epoch = (state.round + 1) % desk.spec.epoch_rounds == 0 or state.round + 1 == desk.spec.steps
        if desk.is_local:
            own = next((digest for worker, digest in decision.parts if worker == desk.me.name), None)
            indices = () if own is None else tuple(state.contributions[desk.me.name, own].item["indices"])
            desk.compute(tasks.LocalStep(state.round, indices, own, wants_digest=ends_epoch))
            return
        sign_contributions(desk, state, decision.parts)
        parts, sums = self._task_parts(state, decision.parts), self._sums(state, decision.parts)
        desk.compute(tasks.Apply(state.round, parts, wants_digest=ends_epoch, sums=sums))

    def _next_parts(self, state: RoundState) -> Parts | None:
        """Return the set to step with, or to announce next; None while something is missing, which is asked for.

        Somebody may name contributions that nobody has: such a set is passed over as long as it is not here.
        """
        desk = self.desk
        for name, decision in sorted(state.decisions.items()):
            if fault := self._fault(state, decision.parts):
                desk.expel_live(name, f"made a step of round {state.round} {fault}")
            elif self._fetched(state, decision.parts, name):
                state.decided = decision
                return decision.parts
        if state.have is not None and self.butterfly is not None and not self.butterfly.is_whole(state, state.have.parts):
            state.have = None  # one of the sums turned out to be false: nobody steps with them, for that one says so no more
        own = self._own_parts(state) if state.have is None else state.have.parts
        candidates = [] if own is None else [own]
        for name, have in sorted(state.haves.items()):
            if have.parts in candidates:
                continue
            if fault := self._fault(state, have.parts):
                desk.expel_live(name, f"announced a step of round {state.round} {fault}")
            elif self._fetched(state, have.parts, name):
                candidates.append(have.parts)
        return max(candidates, default=None)

    def _fault(self, state: RoundState, parts: Parts) -> str | None:
        """Return why nobody who keeps to the rules steps with `parts`; None also while something of them is not here."""
        if any(part in state.unusable for part in parts):
            return "with what cannot be computed with"
        is_here = all(part in state.contributions for part in parts)
        if is_here and not state.covers(parts, self.desk.spec.num_micro_batches):
            return "that does not count each micro-batch once"
        return None

    def _fetched(self, state: RoundState, parts: Parts, holder: str) -> bool:
        """Whether the contributions `parts` are here, or their sums; what is not is asked for, once of each holder.

        As long as its author lives, of one other holder: it is on its way, most likely, and every answer is as large as it is.
        """
        missing = [part for part in parts if part not in state.contributions]
        for part in missing:
            author = part[0]
            is_asked = any(wanted == part and of != author for of, wanted in state.fetching)
            if (holder, part) not in state.fetching and not (is_asked and self.desk.roster.is_live(author)):
                state.fetching.add((holder, part))
                self.desk.send(holder, Fetch(state.round, author))
        if missing:
            return False
        return self.butterfly is None or self.butterfly.is_whole(state, parts, holder)

    def _next_joiners(self, state: RoundState) -> Joiners:
        """Return everybody whom a replica that takes part would admit: nobody is taken back once announced."""
        announced = [have.joiners for have in (*state.haves.values(), state.have) if have is not None]
        waiting = {(name, *told) for name, told in self.waiting_joiners.items()}
        return tuple(sorted(waiting.union(*announced)))

    def _have_met(self, joiners: Joiners) -> bool:
        """Whether all of them have said hello here: who is admitted is waited for from then on, so it must be known."""
        return all(self.desk.roster.has_met(name, incarnation) for name, incarnation, _ in joiners)

    def _own_parts(self, state: RoundState) -> Parts | None:
        """Return the live replicas' contributions when they cover the round; asks for the own sum when it is due."""
        desk = self.desk
        counted = {peer.name: state.peers_counted.get(peer.name, set()) for peer in desk.mates(state.round)}
        self._refuse_double(state, counted)
        counted[desk.me.name] = state.counted
        covered = set().union(*counted.values())
        is_under_way = (state.senders.keys() if desk.is_tail else state.accepted) - state.counted - state.passed_on
        if len(covered) < desk.spec.num_micro_batches or sum(map(len, counted.values())) != len(covered) or is_under_way:
            return None
        if state.counted and state.collecting != state.counted:
            state.collecting = frozenset(state.counted)
            desk.compute(tasks.Collect(state.round, tuple(sorted(state.counted))))
        wanted = [(name, frozenset(indices)) for name, indices in counted.items() if indices]
        if len(state.contributions) < len(wanted):
            return None
        held = {(worker, frozenset(entry.item["indices"])): digest for (worker, digest), entry in state.contributions.items()}
        if not all(entry in held for entry in wanted):
            return None
        parts = tuple(sorted((entry[0], held[entry]) for entry in wanted))
        return parts if self.butterfly is None or self.butterfly.is_whole(state, parts) else None

    def _refuse_double(self, state: RoundState, counted: dict[str, set[int]]) -> None:
        """Give up a replica that says it counted what this worker has counted, where this one is nearer to its lane.

        Not only where it is this one's lane: it may have been sent to either before a third one came back, whose lane it is.
        """
        desk = self.desk
        for name, indices in counted.items():
            if both := indices & state.counted:
                index = min(both)
                both_have_it = (name, desk.me.name)
                owner = desk.roster.serve(stage=desk.me.stage, round_=state.round, index=index, among=both_have_it)
                if owner is not None and owner.name == desk.me.name:
                    desk.expel_live(name, f"says it counted micro-batch {index} of round {state.round}, which was counted here")

    def _is_next_safe(self, state: RoundState) -> bool:
        """Whether everybody in the next stage has told that it holds that stage's contributions, or has made the step already.

        Everybody, so that this worker knows by then what each of them agreed on with the step before (`Desk.dealt_from`).
        """
        desk = self.desk
        following = [] if desk.is_tail else desk.roster.serving(desk.me.stage + 1, state.round)
        return all(peer.name in state.next_haves or peer.name in state.next_stepped for peer in following)

    def _inspected(self, state: RoundState, parts: Parts) -> bool:
        """Say whether `parts` are measured; measure them if not. What never leaves a replica need not be."""
        desk = self.desk
        if desk.is_local or (state.inspected is not None and state.inspected[0] == parts):
            return True
        if state.inspecting != parts:
            state.inspecting = parts
            desk.compute(tasks.Inspect(state.round, self._task_parts(state, parts), self._sums(state, parts)))
        return False

    def _sums(self, state: RoundState, parts: Parts) -> tuple[Payload, ...]:
        """Return the sums of `parts`; nothing where everybody adds up for itself."""
        return () if self.butterfly is None else self.butterfly.sums_of(state, parts)

    def _task_parts(self, state: RoundState, parts: Parts) -> tuple[tasks.Part, ...]:
        held = [state.contributions[part] for part in parts]
        return tuple(tasks.Part(entry.worker, tuple(entry.item["indices"]), entry.payload) for entry in held)

    def _tell(self, message: Counted | Contribution | Have) -> None:
        """Send to all replicas of this stage that take part in the round."""
        self.desk.broadcast(self.desk.mates(message.round), message)

    def _is_settled(self, source: str, round_: int) -> bool:
        """Say whether `round_` is over here; a replica that is still in it is told with which parts."""
        if round_ >= self.desk.round:
            return False
        state = self.desk.rounds.get(round_)
        if state is not None and state.applying is not None:
            self.desk.send(source, state.applying)
        return True
