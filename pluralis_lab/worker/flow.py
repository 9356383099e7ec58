"""Micro-batches on their way: forward from stage to stage, backward the same way, and around a dead worker.

A micro-batch is known everywhere by (round, index), and every message about it may come twice. Who has an activation already
does not compute it again but notes the new sender; so when a worker dies, its stage alone is computed anew, by the survivor.
"""

import math
from collections.abc import Callable

from pluralis_lab.errors import RunError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.payload import Payload
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import Activation, Committed, Gradient
from pluralis_lab.worker.own_data import OwnData
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import RoundState


class Flow:
    """Claims, forwards, returns and re-routes micro-batches. `on_counted` is called when one's weight gradient is in."""

    def __init__(self, desk: Desk, on_counted: Callable[[RoundState], None]) -> None:
        self.desk, self._on_counted = desk, on_counted
        self.own_data = OwnData(desk, self._take_back)

    def claim(self) -> None:
        """As a head, start the indices that are this worker's and not started: of this round, and under `async` of later ones.

        Oldest first, and never more than may be under way, so that what the others have to keep is bounded. What is under way of
        later rounds does not count: it may wait for a joiner, who has to wait until a dead head's older ones are taken over.
        """
        desk = self.desk
        for round_ in range(desk.round, min(desk.round + desk.spec.window + 1, desk.spec.steps)):
            if desk.is_past(round_):
                continue  # the step is being made: what a head that died since had claimed is in it
            state = desk.of(round_)
            # What was taken over from a dead head whose own sum came to be used is never counted: with the step nobody wants it.
            before = [open_ for open_ in desk.rounds.values() if open_.round <= round_ and not desk.is_past(open_.round)]
            free = desk.spec.max_in_flight - sum(len(open_.claimed - open_.counted) for open_ in before)
            for index in range(desk.spec.num_micro_batches):
                if index in state.claimed:
                    continue
                owner = desk.roster.serve(stage=0, round_=round_, index=index)
                if owner is None or owner.name != desk.me.name:
                    continue
                if free <= 0:
                    return
                free -= 1
                state.claimed.add(index)
                state.begun.add(index)
                desk.compute(tasks.Forward(round_, index, None))

    def on_activation(self, source: str, message: Activation) -> None:
        """Compute it, or, if that is done or under way, remember who else waits for the gradient."""
        desk, index = self.desk, message.index
        is_past = desk.is_past(message.round)
        if is_past and (not desk.spec.is_async or desk.is_over(message.round)):
            # The sender missed that this stage makes the step: nobody needs its gradient.
            desk.send(source, Committed(message.round, ()))
            return
        state = desk.of_past(message.round) if is_past else desk.of(message.round)
        if index in state.senders:
            if self.own_data.is_other(state, source, message):
                return
            if source not in state.senders[index]:
                state.senders[index].append(source)
                if index not in state.sent and index not in state.loss:
                    state.spares.setdefault(index, []).append((source, message))
            if index in state.returned:
                desk.send(source, state.returned[index])
            return
        state.senders[index] = [source]
        state.begun.add(index)
        self.own_data.note(state, message)
        if is_past:  # under `async` this stage has stepped, and the sender's has not: it still needs the gradient
            state.passed_on.add(index)
        elif self._is_taken_over(source, message) and self._is_counted_elsewhere(state, index):
            # Who died had sent it to another replica, which the sender could not know: this one came, and has its lane, since.
            state.passed_on.add(index)
            state.yielded[index] = (source, message)
        else:
            state.used_forward.setdefault(source, []).append(message.item)
        desk.compute(tasks.Forward(message.round, index, message.payload, counts=index not in state.passed_on))

    def _is_taken_over(self, source: str, message: Activation) -> bool:
        """Whether `source` does what another worker of its stage was dealt, and draws it as that one did."""
        stage, slot = self.desk.seats[source]
        owner, *_ = self.desk.roster.lanes(stage).turns(message.round, message.index)
        return owner != slot and not self.desk.spec.own_data

    def _is_counted_elsewhere(self, state: RoundState, index: int) -> bool:
        """Whether a replica that takes part in the round says that it holds the index's weight gradient.

        Not one that joins again, whose earlier life had told of it.
        """
        return any(index in state.peers_counted.get(peer.name, ()) for peer in self.desk.mates(state.round))

    def _take_up(self, state: RoundState) -> None:
        """Count what was left to a replica that is gone; an index that is still on its way comes here again when it is back.

        Only what falls to this worker now. Who deals a micro-batch twice could otherwise have two replicas count it still.
        """
        desk = self.desk
        for index, (source, message) in list(state.yielded.items()):
            owner = desk.roster.serve(stage=desk.me.stage, round_=state.round, index=index)
            is_mine = owner is not None and owner.name == desk.me.name and not self._is_counted_elsewhere(state, index)
            if is_mine and index in state.returned and not desk.is_past(state.round):
                senders = state.senders[index]
                self._take_back(state, index)
                for held in (state.sent, state.sent_to, state.returned, state.loss):
                    held.pop(index, None)
                state.accepted.discard(index)
                self.on_activation(source, message)
                state.senders[index] = senders

    def on_forward_done(self, task: tasks.Forward, done: tasks.ForwardDone) -> None:
        desk, state = self.desk, self._state_of(task)
        if state is None:
            return
        state.spares.pop(task.index, None)
        if done.output is None:
            assert done.loss is not None
            if not math.isfinite(done.loss):
                raise RunError(
                    f"the loss of micro-batch {task.index} of round {task.round} is {done.loss}; lower the learning rate"
                )
            state.loss[task.index] = done.loss
            self._count(state, task.index, done.gradient)
            return
        item = desk.sign("forward", task.round, [task.index], done.output)
        is_own = done.own if desk.is_head else task.index in state.own
        state.sent[task.index] = Activation(task.round, task.index, item, done.output, is_own)
        self._forward(state, task.index)

    def on_gradient(self, source: str, message: Gradient) -> None:
        """Run backward with the first gradient that comes for an index; later copies change nothing."""
        desk = self.desk
        state = desk.rounds.get(message.round)
        if state is None or message.index in state.accepted or state.sent_to.get(message.index) != source:
            return
        if desk.is_past(message.round):
            if not desk.spec.is_async:
                return  # the step is made without it, and the stage before had made it already
            state.passed_on.add(message.index)  # another replica counted it, but whoever sent it here may still lack its gradient
        counts = message.index not in state.passed_on
        state.accepted.add(message.index)
        if counts:
            state.used_backward.setdefault(source, []).append(message.item)
        desk.compute(tasks.Backward(message.round, message.index, message.payload, counts))

    def on_backward_done(self, task: tasks.Backward, done: tasks.BackwardDone) -> None:
        state = self._state_of(task)
        if state is not None:
            self._count(state, task.index, done.gradient)

    def _state_of(self, task: tasks.Forward | tasks.Backward) -> RoundState | None:
        """Return the round's state as it was when `task` was asked for; None when nobody waits for its result any more.

        Under `async` that state can have been dropped meanwhile, and made anew for somebody who still waits for another index.
        """
        state = self.desk.rounds.get(task.round)
        return state if state is not None and task.index in state.begun else None

    def on_forward_refused(self, task: tasks.Forward, reason: str) -> None:
        """Undo an activation that cannot be computed, and give up who sent it.

        Another worker of its stage sends it anew, or has done so already: not everybody sends only what it was dealt.
        """
        state = self._state_of(task)
        if state is None:
            return
        sender = state.senders[task.index][0]
        spares = state.spares.pop(task.index, [])
        self._take_back(state, task.index)
        self.desk.expel_live(sender, reason)
        for source, message in spares:
            if self.desk.roster.is_live(source):
                self.on_activation(source, message)

    def on_drawn_refused(self, task: tasks.Forward, reason: str) -> None:
        """Draw a micro-batch as at first, that somebody wanted made of ids that cannot be."""
        state = self._state_of(task)
        if state is not None:
            self.own_data.on_refused(state, task.index, reason)

    def _take_back(self, state: RoundState, index: int) -> None:
        """Undo what the activation of `index` began here: whoever sends it anew is served as if it were the first."""
        sender = state.senders.pop(index)[0]
        state.used_forward[sender] = [item for item in state.used_forward.get(sender, []) if item["indices"] != [index]]
        state.begun.discard(index)
        state.own.discard(index)
        state.drawn.pop(index, None)
        if state.yielded.pop(index, None) is not None:
            state.passed_on.discard(index)

    def on_backward_refused(self, task: tasks.Backward, reason: str) -> None:
        """Undo a gradient that cannot be used, and give up who sent it: another worker of its stage computes it anew."""
        state = self._state_of(task)
        if state is None:
            return
        state.accepted.discard(task.index)
        sender = state.sent_to[task.index]
        state.used_backward[sender] = [item for item in state.used_backward.get(sender, []) if item["indices"] != [task.index]]
        self.desk.expel_live(sender, reason)

    def on_peer_lost(self, lost: Peer) -> None:
        """Send what the dead worker held to its replacements; as a head, take over its indices."""
        desk = self.desk
        if lost.stage == desk.me.stage + 1:
            self.deal_again(lost, is_dead=True)
        if lost.stage == desk.me.stage == 0 and desk.state == "active":
            self.claim()
        elif lost.stage == desk.me.stage:
            for state in list(desk.rounds.values()):
                self._take_up(state)

    def deal_again(self, holder: Peer, *, is_dead: bool = False) -> None:
        """Send what `holder` was dealt, who does not do it, to its replacements, and what was kept for it."""
        for state in list(self.desk.rounds.values()):
            for index in sorted(index for index, target in state.sent_to.items() if target == holder.name):
                if self._is_wanted(state, index):
                    self._forward(state, index, dead=holder.name if is_dead else None)
        self._deal_waiting()

    def on_peer_found(self, peer: Peer) -> None:
        """Give waiting micro-batches to a worker that fills an empty stage, or for whom they were kept."""
        if peer.stage == self.desk.me.stage + 1:
            self._deal_waiting()

    def _deal_waiting(self) -> None:
        for state in list(self.desk.rounds.values()):
            for index in sorted(state.sent.keys() - state.sent_to.keys()):
                if self._is_wanted(state, index):
                    self._forward(state, index)

    def _is_wanted(self, state: RoundState, index: int) -> bool:
        """Whether the next stage has to compute `index` once more: for its own sum, or for the gradient this worker lacks."""
        return not state.next_committed or (self.desk.spec.is_async and index not in state.accepted)

    def _count(self, state: RoundState, index: int, gradient: Payload | None) -> None:
        """Note that this worker holds the index's weight gradient, and return the input's gradient."""
        desk = self.desk
        desk.pace.count()
        if index not in state.passed_on:
            state.counted.add(index)
        if gradient is not None:
            item = desk.sign("backward", state.round, [index], gradient)
            state.returned[index] = Gradient(state.round, index, item, gradient)
            for sender in state.senders[index]:
                desk.send(sender, state.returned[index])
        if index not in state.passed_on:
            self._on_counted(state)
        elif index in state.yielded:
            self._take_up(state)
        if desk.is_head and not desk.spec.claims_at_once and desk.state == "active":
            self.claim()

    def _forward(self, state: RoundState, index: int, *, dead: str | None = None) -> None:
        """Send the output of `index` to whoever serves it at the next stage."""
        desk = self.desk
        stage = desk.me.stage + 1
        peer = desk.roster.serve(stage=stage, round_=state.round, index=index)
        if peer is None:
            state.sent_to.pop(index, None)
            desk.report("stalled", stage=stage, round=state.round)
            return
        if not peer.is_met:
            state.sent_to.pop(index, None)
            return
        target = peer.name
        state.sent_to[index] = target
        if dead is not None:
            desk.report("reroute", round=state.round, index=index, stage=stage, dead=dead, to=target)
        desk.send(target, state.sent[index])
