"""How the replicas of a stage make the same step: who counted what, whose contributions are in, and when to apply them.

`FullSync` over `gather` (algorithms.md, "Sync inside a stage"): every replica receives every contribution and steps when all
live ones have announced the same set. A stage steps only after the stage before it, so that whoever may still need a gradient
of the round finds somebody who can recompute it with the round's weights.
"""

from collections.abc import Callable

from pluralis_lab.contributions.receipts import Kind, sign_receipt
from pluralis_lab.errors import RunError
from pluralis_lab.learning import tasks
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import Committed, Contribution, Counted, Fetch, Have, Item
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import Parts, RoundState


class Commit:
    """Brings a round to its step.

    on_step : called with (round's state, joiners to admit, digest of the weights or None) when the new weights are there
    may_step : asked before this worker agrees to a step; a change to True is followed by `advance`
    """

    def __init__(
        self,
        desk: Desk,
        on_step: Callable[[RoundState, tuple[tuple[str, int], ...], str | None], None],
        *,
        may_step: Callable[[], bool],
    ) -> None:
        self.desk, self._on_step, self._may_step = desk, on_step, may_step
        self.waiting_joiners: dict[str, int] = {}

    def on_counted_here(self, state: RoundState) -> None:
        self._tell(Counted(state.round, tuple(sorted(state.counted))))
        self.advance(state)

    def on_counted(self, source: str, message: Counted) -> None:
        if self._is_settled(source, message.round):
            return
        state = self.desk.current()
        state.peers_counted[source] = set(message.indices)
        self.advance(state)

    def on_contribution(self, source: str, message: Contribution) -> None:
        """Keep a contribution that its author signed, from the author or relayed by a replica that has it."""
        if self._is_settled(source, message.round):
            return
        desk, state = self.desk, self.desk.current()
        author = desk.roster.get(message.worker)
        if author is None and message.worker not in state.fetching:
            return
        if author is not None:
            if author.stage != desk.me.stage:
                return
            desk.verify("contribution", message.round, author, message.item, message.payload)
        held = state.contributions.get(message.worker)
        if held is None or len(held.item["indices"]) <= len(message.item["indices"]):
            state.contributions[message.worker] = message
        self.advance(state)

    def on_have(self, source: str, message: Have) -> None:
        if self._is_settled(source, message.round):
            return
        state = self.desk.current()
        state.haves[source] = message
        self.advance(state)

    def on_fetch(self, source: str, message: Fetch) -> None:
        state = self.desk.rounds.get(message.round)
        if state is not None and message.worker in state.contributions:
            self.desk.send(source, state.contributions[message.worker])

    def on_committed(self, source: Peer, message: Committed) -> None:
        """A neighbour stage or a replica has made the step."""
        desk = self.desk
        if source.stage == desk.me.stage and message.round == desk.round and message.parts:
            state = desk.current()
            state.peers_committed.add(source.name)
            state.decided = message.parts
            for worker, digest in message.parts:
                held = state.contributions.get(worker)
                if (held is None or held.payload.digest != digest) and worker not in state.fetching:
                    state.fetching.add(worker)
                    desk.send(source.name, Fetch(message.round, worker))
            self.advance(state)
            return
        state_or_none = desk.rounds.get(message.round)
        if state_or_none is None:
            return
        state = state_or_none
        if source.stage == desk.me.stage:
            state.peers_committed.add(source.name)
        elif source.stage == desk.me.stage - 1:
            state.previous_committed = True
        elif source.stage == desk.me.stage + 1:
            state.next_committed = True
        if not state.is_committed:
            self.advance(state)
        desk.retire_rounds()

    def on_peer_lost(self, lost: Peer) -> None:
        """Go on without the dead replica: what it counted is counted anew, by whoever its micro-batches are sent to."""
        self.waiting_joiners.pop(lost.name, None)
        if lost.stage != self.desk.me.stage:
            return
        state = self.desk.current()
        state.peers_counted.pop(lost.name, None)
        state.haves.pop(lost.name, None)
        self.advance(state)
        self.desk.retire_rounds()

    def on_collect_done(self, task: tasks.Collect, done: tasks.CollectDone) -> None:
        desk, state = self.desk, self.desk.rounds[task.round]
        item = desk.sign("contribution", task.round, list(task.indices), done.gradient)
        loss = sum(state.loss[index] for index in task.indices) if desk.is_tail else None
        message = Contribution(task.round, desk.me.name, loss, item, done.gradient)
        state.contributions[desk.me.name] = message
        self._tell(message)
        self.advance(state)

    def on_inspect_done(self, task: tasks.Inspect, done: tasks.InspectDone) -> None:
        state = self.desk.rounds[task.round]
        parts = tuple((part.worker, part.gradient.digest) for part in task.parts)
        state.inspected = (parts, done)
        self.advance(state)

    def on_apply_done(self, task: tasks.Apply, done: tasks.ApplyDone) -> None:
        state = self.desk.rounds[task.round]
        state.is_committed = True
        joiners = {joiner for have in (*state.haves.values(), state.have) if have is not None for joiner in have.joiners}
        self._on_step(state, tuple(sorted(joiners)), done.state_digest)

    def advance(self, state: RoundState) -> None:
        """Do the next thing that brings this round to its step, if its turn has come."""
        desk = self.desk
        if state.applying is not None or state.round != desk.round or desk.state != "active":
            return
        parts = state.decided if state.decided is not None else self._agreed_parts(state)
        if parts is None or not self._inspected(state, parts):
            return
        if not self._may_step():
            return
        if state.have is None or state.have.parts != parts:
            self._sign_neighbours(state)
            state.have = Have(state.round, parts, tuple(sorted(self.waiting_joiners.items())))
            self._tell(state.have)
        if state.decided is None:
            mates = [peer for peer in desk.roster.serving(desk.me.stage, state.round) if peer.name != desk.me.name]
            if any(peer.name not in state.haves or state.haves[peer.name].parts != parts for peer in mates):
                return
            if not desk.is_head and not state.previous_committed:
                return
        state.applying = parts
        self._sign_contributions(state, parts)
        ends_epoch = (state.round + 1) % desk.spec.epoch_rounds == 0 or state.round + 1 == desk.spec.steps
        desk.compute(tasks.Apply(state.round, self._task_parts(state, parts), wants_digest=ends_epoch))

    def _agreed_parts(self, state: RoundState) -> Parts | None:
        """Return the parts that cover the round, None while something is missing; asks for the own sum when it is due."""
        desk = self.desk
        mates = [peer.name for peer in desk.roster.serving(desk.me.stage, state.round) if peer.name != desk.me.name]
        counted = {desk.me.name: state.counted, **{name: state.peers_counted.get(name, set()) for name in mates}}
        covered = set().union(*counted.values())
        if covered != set(range(desk.spec.num_micro_batches)):
            return None
        if sum(map(len, counted.values())) != len(covered):
            raise RunError(f"round {state.round}: replicas of stage {desk.me.stage} counted a micro-batch twice: {counted}")
        if state.counted and state.collecting != state.counted:
            state.collecting = frozenset(state.counted)
            desk.compute(tasks.Collect(state.round, tuple(sorted(state.counted))))
        for name, indices in counted.items():
            held = state.contributions.get(name)
            if indices and (held is None or set(held.item["indices"]) != indices):
                return None
        return tuple(sorted((name, state.contributions[name].payload.digest) for name, indices in counted.items() if indices))

    def _inspected(self, state: RoundState, parts: Parts) -> bool:
        """Say whether `parts` are here and measured; measure them if they are here."""
        if state.inspected is not None and state.inspected[0] == parts:
            return True
        for worker, digest in parts:
            held = state.contributions.get(worker)
            if held is None or held.payload.digest != digest:
                return False
        if state.inspecting != parts:
            state.inspecting = parts
            self.desk.compute(tasks.Inspect(state.round, self._task_parts(state, parts)))
        return False

    def _task_parts(self, state: RoundState, parts: Parts) -> tuple[tasks.Part, ...]:
        held = [state.contributions[worker] for worker, _ in parts]
        return tuple(tasks.Part(entry.worker, tuple(entry.item["indices"]), entry.payload) for entry in held)

    def _sign_neighbours(self, state: RoundState) -> None:
        """Counter-sign the activations and gradients this worker used, before anyone can rely on the step."""
        stage = self.desk.me.stage
        tallies: list[tuple[Kind, int, dict[str, list[Item]]]] = [
            ("forward", stage - 1, state.used_forward),
            ("backward", stage + 1, state.used_backward),
        ]
        statements = [
            self._receipt(kind, state.round, of_stage, worker, items)
            for kind, of_stage, used in tallies
            for worker, items in sorted(used.items())
        ]
        state.used_forward, state.used_backward = {}, {}  # after a death there can be more to sign, but nothing twice
        if statements:
            self.desk.report("statements", round=state.round, statements=statements)

    def _sign_contributions(self, state: RoundState, parts: Parts) -> None:
        """Counter-sign the weight gradients of the other replicas that this step is made from.

        Alone in its stage, a worker signs its own: that shows work which nobody attested, and is not paid.
        """
        assert state.inspected is not None
        measured = state.inspected[1]
        me = self.desk.me
        statements = [
            self._receipt(
                "contribution",
                state.round,
                me.stage,
                worker,
                [state.contributions[worker].item],
                norm=measured.norms[worker],
                agreement=measured.agreements[worker],
            )
            for worker, _ in parts
            if worker != me.name or len(parts) == 1
        ]
        if statements:
            self.desk.report("statements", round=state.round, statements=statements)

    def _receipt(
        self,
        kind: Kind,
        round_: int,
        stage: int,
        worker: str,
        items: list[Item],
        *,
        norm: float | None = None,
        agreement: float | None = None,
    ) -> Item:
        desk = self.desk
        return sign_receipt(
            desk.key,
            kind=kind,
            run=desk.run_id,
            epoch=round_ // desk.spec.epoch_rounds,
            round=round_,
            stage=stage,
            worker=worker,
            signer=desk.me.name,
            items=items,
            norm=norm,
            agreement=agreement,
        )

    def _tell(self, message: Counted | Contribution | Have) -> None:
        """Send to all replicas of this stage that take part in the round."""
        desk = self.desk
        desk.broadcast(desk.roster.serving(desk.me.stage, message.round), message)

    def _is_settled(self, source: str, round_: int) -> bool:
        """Say whether `round_` is over here; a replica that is still in it is told with which parts."""
        if round_ >= self.desk.round:
            return False
        state = self.desk.rounds.get(round_)
        if state is not None and state.applying is not None:
            self.desk.send(source, Committed(round_, state.applying))
        return True
