"""Who is in: greetings, joining with a replica's state, and admission at a step."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from pluralis_lab.learning import tasks
from pluralis_lab.learning.state_chunks import chunk_of, hashes_of, num_chunks
from pluralis_lab.worker import messages as wire
from pluralis_lab.worker.commit import Commit
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.download import Download
from pluralis_lab.worker.exchange import Exchanges
from pluralis_lab.worker.lanes import Table, next_table
from pluralis_lab.worker.roster import GREETING_S, Peer
from pluralis_lab.worker.round_state import Joiners, RoundState

STUCK_S = 120.0
"""The stage waits for a joiner that was let in. One that has not asked for more of the state for so long is waited for no longer:
the `AT_ONCE` chunks that it asked for last take 17 s at 2 Mbit/s."""


class Membership:
    """Lets joiners into the stage, hands out its state, and asks for it when this worker joins itself.

    on_not_admitted : called with a worker of the next stage that was dealt work and is not let in yet
    """

    def __init__(self, desk: Desk, commit: Commit, exchanges: Exchanges, on_not_admitted: Callable[[Peer], None]) -> None:
        self.desk, self.commit, self._exchanges, self._on_not_admitted = desk, commit, exchanges, on_not_admitted
        self._admitted: set[str] = set()
        """Who was let in and has not said yet that it has begun."""
        self._made: deque[wire.Committed] = deque(maxlen=desk.spec.window + 3)
        """The last steps made here: whoever comes to the stage before can still need to know what was agreed on with these."""
        self._next_steps: dict[int, dict[str, Joiners]] = {}
        """Whom each replica of the next stage says it has let in, by step."""
        self._told_at: dict[str, float] = {}
        """When somebody told of each worker that is not met."""
        self._in_vain: set[tuple[str, int]] = set()
        """Incarnations that were waited for and have not greeted: only their own word counts."""
        self.download = Download(desk)
        self.on_trial = False
        """Whether this worker was set aside before, and asks to be tried with one micro-batch."""
        self._snapshot_for: dict[int, list[Peer]] = {}
        self._offered: dict[str, tuple[tasks.SnapshotDone, set[str]]] = {}
        """States that joiners are fetching from this worker, by digest, and who they are."""
        self._fetched_at: dict[str, float] = {}
        """When each of them asked for something last."""

    @property
    def has_successor(self) -> bool:
        """Whether another replica has the stage's state, and nobody waits for it from this one."""
        desk = self.desk
        mates = desk.roster.serving(desk.me.stage, desk.round)
        others = [peer for peer in mates if peer.name != desk.me.name and peer.name not in self._admitted]
        return bool(others) and not self._snapshot_for and not self._offered

    def forget(self, name: str) -> None:
        """Note that this incarnation of `name` is gone."""
        self._admitted.discard(name)
        self._has_state(name)

    def on_hello(self, source: str, message: wire.Hello) -> Peer | None:
        """Enter a peer in the roster and return it; None for an incarnation that is known to be gone."""
        desk = self.desk
        known = desk.roster.get(source)
        if known is not None and not known.is_met and known.incarnation != message.incarnation:
            self._admitted.discard(source)  # that was said of another life of it
        peer = Peer(source, message.stage, message.replica, message.key, message.incarnation, message.since)
        if known is not None and _is_old_news(known, message):
            peer = replace(known, is_met=True)
        elif message.since is not None:
            self._admitted.discard(source)
            self._has_state(source)
            self.commit.waiting_joiners.pop(source, None)
        if not desk.roster.add(peer):
            return None
        if message.answer:
            since = desk.me.since if desk.state in ("active", "serving") else None
            self.say_hello([peer], since=since, answer=False)
            if peer.stage == desk.me.stage - 1:
                for step in self._made:
                    desk.send(source, step)
        if desk.state == "joining" and peer.stage == desk.me.stage and peer.since is not None:
            desk.send(source, wire.Join(desk.me.incarnation, self.on_trial))
        return peer

    def say_hello(self, peers: list[Peer], *, since: int | None, answer: bool) -> None:
        me = self.desk.me
        self.desk.broadcast(peers, wire.Hello(me.stage, me.replica, me.key, me.incarnation, since, answer))

    def ask_to_join(self) -> None:
        """Ask every replica that has the stage's state, so that all of them admit at the same step; the first one sends it."""
        desk = self.desk
        holders = [peer for peer in desk.roster.stage(desk.me.stage) if peer.since is not None]
        if not holders:
            desk.report("stalled", stage=desk.me.stage, round=None)
        desk.broadcast(holders, wire.Join(desk.me.incarnation, self.on_trial))

    def on_join(self, source: str, message: wire.Join) -> None:
        """Let a joiner in with the next step, or at once when there is none to come."""
        desk = self.desk
        peer = desk.roster.get(source)
        if peer is None or peer.incarnation != message.incarnation:
            return
        if source in self._admitted and peer.since is not None and peer.since < (desk.me.since or 0):
            # Who had been let in before this worker would have begun before it: what that one's state came with was not so.
            self._admitted.discard(source)
            desk.roster.promote(source, None)
            peer = replace(peer, since=None)
        if source in self._admitted:  # it lost who would have sent it the state
            self._donate([peer] if peer.since == desk.round else [])
        elif peer.since is not None:
            desk.expel_live(source, "asks to join, but takes part")
        else:
            self.commit.waiting_joiners[source] = (message.incarnation, message.on_trial)
            if desk.state == "active":
                self.commit.advance(desk.current())
            elif desk.state == "serving":
                self.admit_waiting()

    def admit_waiting(self) -> None:
        """Let in whoever asked too late for the last step."""
        desk = self.desk
        joiners = tuple(sorted((name, *told) for name, told in self.commit.waiting_joiners.items()))
        self.admit_all(joiners, desk.spec.steps - 1)
        peers = [desk.roster.get(name) for name, *_ in joiners]
        self._donate([peer for peer in peers if peer is not None and peer.name in self._admitted])

    def on_step(self, made: wire.Committed) -> None:
        """Note the step that was just made, as neighbours are told of it."""
        self._made.append(made)

    def admit_all(self, joiners: Joiners, step: int) -> None:
        """Let `joiners`, agreed on with that `step`, take part from the next round on of which nothing was dealt.

        Nobody passes that round without them, so until they have the state any replica can send it.
        """
        desk = self.desk
        since = desk.dealt_from(desk.me.stage, step)
        for name, incarnation, on_trial in joiners:
            if self.commit.waiting_joiners.get(name) == (incarnation, on_trial):  # a later one has still to be let in
                del self.commit.waiting_joiners[name]
            peer = desk.roster.get(name)
            if peer is not None and peer.incarnation == incarnation and peer.since is None and name != desk.me.name:
                desk.roster.promote(name, since)
                self._admitted.add(name)

    def await_next(self, state: RoundState) -> None:
        """After the own step, await those whom the next stage is about to let in: all of its replicas have announced them.

        If it turns out otherwise, `on_next_committed` takes that back.
        """
        replicas = self._next_replicas(state.round)
        if replicas and state.next_haves.keys() >= replicas:
            self._await(set.intersection(*(set(state.next_haves[name]) for name in replicas)), state.round)
        if state.round in self._next_steps:  # they were quicker, and what they announced last may not be what they did
            self._settle_next(state.round)

    def on_next_committed(self, source: Peer, message: wire.Committed) -> None:
        """Note whom the next stage has let in with its step."""
        oldest = self.desk.round - self.desk.spec.window - 2
        if not message.parts or message.round < oldest:
            return  # an answer to who missed that step, or long past
        self._next_steps = {round_: told for round_, told in self._next_steps.items() if round_ >= oldest}
        self._next_steps.setdefault(message.round, {}).setdefault(source.name, message.joiners)  # its first word counts
        self._settle_next(message.round)

    def on_next_lost(self) -> None:
        """A replica of the next stage is gone; the others may have said already whom they have let in."""
        self._settle_all()

    def _settle_all(self) -> None:
        for round_ in list(self._next_steps):
            self._settle_next(round_)

    def _settle_next(self, round_: int) -> None:
        """When all replicas of the next stage have told of their step, go by that. One alone could name whom nobody awaits."""
        desk, told = self.desk, self._next_steps[round_]
        replicas = self._next_replicas(round_)
        if not replicas or not told.keys() >= replicas:
            return
        self._await(set.intersection(*(set(told[name]) for name in replicas)), round_)
        named = {(name, incarnation) for by in replicas for name, incarnation, _ in told[by]}
        since = desk.dealt_from(desk.me.stage + 1, round_)
        for peer in desk.roster.serving(desk.me.stage + 1, since) if since < desk.spec.steps else ():
            if peer.is_awaited and peer.since == since and (peer.name, peer.incarnation) not in named:
                desk.roster.promote(peer.name, None)
                self._on_not_admitted(peer)

    def _await(self, joiners: set[tuple[str, int, bool]], step: int) -> None:
        desk = self.desk
        since = desk.dealt_from(desk.me.stage + 1, step)
        if since < desk.round:
            return  # nobody can be waited for any more
        for name, incarnation, _ in sorted(joiners):
            if self._enter(name, incarnation):
                desk.roster.await_from(name, since)

    def _who_takes_part(self) -> tuple[tuple[str, int, int, bool], ...]:
        """Return who was let in here and in the next stage, as a joiner is told of it (`StateOffer`)."""
        desk = self.desk
        present = [*desk.roster.stage(desk.me.stage), *desk.roster.stage(desk.me.stage + 1)]
        return tuple(
            (peer.name, peer.incarnation, peer.since, peer.name not in self._admitted and not peer.is_awaited)
            for peer in sorted(present, key=lambda peer: peer.name)
            if peer.since is not None
        )

    def enter_told(self) -> None:
        """As a joiner, go by who takes part here and in the next stage as the sender of the state knows it."""
        desk = self.desk
        assert self.download.offer is not None
        for name, incarnation, since, has_begun in self.download.offer.peers:
            if name == desk.me.name or not self._enter(name, incarnation):
                continue
            is_mate = desk.seats[name][0] == desk.me.stage
            if is_mate:  # whether it has begun it says itself
                self._admitted.add(name)
                self.commit.waiting_joiners.pop(name, None)
            if is_mate or (has_begun and desk.roster.is_live(name)):
                desk.roster.promote(name, since)
            else:
                desk.roster.await_from(name, since)

    def _enter(self, name: str, incarnation: int) -> bool:
        """Have somebody in the roster who was let in; False if that incarnation is gone, or is known to take part.

        Its own greeting may come later than the news of it: who waited for that to deal to it could give others what somebody
        else gives it.
        """
        desk = self.desk
        is_gone = desk.roster.is_lost(name, incarnation) or (name, incarnation) in self._in_vain
        if desk.roster.get(name) is None and not is_gone:
            stage, replica = desk.seats[name]
            desk.roster.add(Peer(name, stage, replica, desk.keys[name], incarnation, since=None, is_met=False))
            self._told_at[name] = desk.now
        known = desk.roster.get(name)
        return known is not None and known.incarnation == incarnation and known.since is None

    def _next_replicas(self, round_: int) -> set[str]:
        return set(self.desk.roster.ready(self.desk.me.stage + 1, round_))

    def deal_anew(self, state: RoundState, decision: wire.Committed) -> Table:
        """Return the stage's lanes from the first round on that nobody has dealt out, after a step that all replicas make."""
        desk = self.desk
        since = desk.dealt_from(desk.me.stage, state.round)
        lanes = desk.roster.lanes(desk.me.stage)
        table = next_table(
            lanes.of(since),
            state.round,
            since=since,
            paces={desk.seats[part[0]][1]: state.contributions[part].pace for part in decision.parts},
            dealt=set(lanes.dealt(state.round)),
            joined={desk.seats[name][1]: on_trial for name, _, on_trial in decision.joiners},
            is_head=desk.is_head,
        )
        desk.roster.set_lanes(desk.me.stage, since, table)
        return table

    def on_replica_lost(self) -> None:
        """Send the state to those who may have waited for it from the dead replica."""
        self._donate(self._due())

    def _due(self) -> list[Peer]:
        """Return who takes part from the present round on and has not said that it has begun."""
        desk = self.desk
        peers = [desk.roster.get(name) for name in sorted(self._admitted)]
        return [peer for peer in peers if peer is not None and peer.since == desk.round]

    def hand_out_state(self) -> None:
        """Send the state of the step just made to those who begin with it, and keep it when a checkpoint is due."""
        desk = self.desk
        self._donate(self._due())
        if desk.round not in self._snapshot_for and (desk.round % desk.spec.checkpoint_every == 0 or desk.is_finished):
            self._snapshot_for[desk.round] = []
            desk.compute(tasks.Snapshot(desk.round, self._exchanges.mark()))

    def _donate(self, joiners: list[Peer]) -> None:
        """As the first replica that has it, send the state to `joiners`."""
        desk = self.desk
        members = [peer for peer in desk.roster.serving(desk.me.stage, desk.round) if peer.name not in self._admitted]
        if joiners and members and members[0].name == desk.me.name:
            self._snapshot_for.setdefault(desk.round, []).extend(joiners)
            desk.compute(tasks.Snapshot(desk.round, self._exchanges.mark()))

    def on_snapshot_done(self, task: tasks.Snapshot, done: tasks.SnapshotDone) -> None:
        desk = self.desk
        waiting = [(peer, desk.roster.get(peer.name)) for peer in self._snapshot_for.pop(task.version, [])]
        # One that died meanwhile would never say that it has the state, and a later life of it has not been admitted.
        if joiners := [
            peer
            for peer, known in waiting
            if known is not None and known.incarnation == peer.incarnation and peer.name in self._admitted
        ]:
            lanes, next_lanes = (tuple(desk.roster.lanes(stage).tables) for stage in (desk.me.stage, desk.me.stage + 1))
            offer = wire.StateOffer(
                done.version,
                done.digest,
                lanes,
                len(done.state),
                hashes_of(done.state),
                () if desk.is_tail else next_lanes,
                self._who_takes_part(),
            )
            _, fetching = self._offered.setdefault(done.digest, (done, set()))
            fetching.update(peer.name for peer in joiners)
            self._fetched_at.update((peer.name, desk.now) for peer in joiners)
            desk.broadcast(joiners, offer)
        if done.version % desk.spec.checkpoint_every == 0 or done.version >= desk.spec.steps:
            desk.store(done.version, done.state, done.digest)

    def on_fetch_state(self, source: str, message: wire.FetchState) -> None:
        """Send chunks of the state that was offered; one that asks for another has been offered that by somebody else."""
        done, fetching = self._offered.get(message.digest, (None, ()))
        if done is None or source not in fetching:
            return
        self._fetched_at[source] = self.desk.now
        count = num_chunks(len(done.state))
        if max(message.indices, default=0) >= count:
            self.desk.expel_live(source, f"wants chunk {max(message.indices)} of a state that has {count}")
            return
        for index in message.indices:
            self.desk.send(source, wire.StateChunk(done.version, done.digest, index, chunk_of(done.state, index)))

    def _has_state(self, name: str) -> None:
        """Note that `name` fetches no state any more; one that nobody fetches is dropped."""
        self._fetched_at.pop(name, None)
        for _, fetching in self._offered.values():
            fetching.discard(name)
        self._offered = {digest: offered for digest, offered in self._offered.items() if offered[1]}

    def forget_unmet(self, *, away_s: float) -> list[Peer]:
        """Forget, report and return those who take part only in what somebody said: they never were, or cannot reach this worker.

        away_s : for how long this worker stood still itself; it has still to hear what came meanwhile
        """
        desk = self.desk
        self._told_at = {name: told_at + away_s for name, told_at in self._told_at.items()}
        forgotten = [peer for peer in desk.roster.unmet if desk.now - self._told_at[peer.name] >= GREETING_S]
        for peer in forgotten:
            desk.roster.forget(peer.name)
            self.forget(peer.name)
            self._in_vain.add((peer.name, peer.incarnation))
            desk.report("unmet", peer=peer.name, waited_s=desk.now - self._told_at[peer.name])
        return forgotten

    def set_stuck_aside(self) -> None:
        """Go on without joiners that do not fetch the state which all wait for them to have."""
        desk = self.desk
        for name, at in list(self._fetched_at.items()):
            peer = desk.roster.get(name)
            if peer is not None and desk.now - at > STUCK_S:
                self._fetched_at[name] = desk.now
                desk.set_aside(peer, desk.now - at, "does not fetch the state")

    def on_holder_lost(self, lost: Peer) -> None:
        """As a joiner, ask the others again when a replica is gone that would have sent the state, or was sending it."""
        desk = self.desk
        if self.download.on_lost(lost.name):
            desk.enter("joining", round=None)
        if desk.state == "joining" and lost.stage == desk.me.stage:
            self.ask_to_join()

    def on_restore_refused(self, reason: str) -> None:
        """Give up who sent a state that cannot be loaded; when it is gone, the other replicas are asked again."""
        self.desk.enter("joining", round=None)
        self.download.refuse(reason)


def _is_old_news(known: Peer, message: wire.Hello) -> bool:
    """Whether the stage of a worker that says hello has let it in already: the Hello was sent before."""
    is_other = known.incarnation == message.incarnation and known.since not in (None, message.since)
    return is_other and (message.since is None or not known.is_awaited)
