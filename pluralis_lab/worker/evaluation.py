"""Validation through the stages: one head sends held-out micro-batches along, the tail answers with their loss.

All stages must evaluate the same weights. A stage steps only after the stage before it, so it is enough that this head does
not agree to its own stage's next step until every answer is in. Under ``schedule="async"`` stages are never at the same step, and
nothing waits: each takes the weights that it has, until the last validation, which is of the final weights.
"""

import math
from collections.abc import Callable

from pluralis_lab.errors import RunError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.turns import switches
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import EvalActivation, EvalDone
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import RoundState


class Evaluation:
    """Asks for, passes on and collects validation losses. `on_complete` is called when a version's answers are all in."""

    def __init__(self, desk: Desk, on_complete: Callable[[], None]) -> None:
        self.desk, self._on_complete = desk, on_complete
        self._results: dict[int, EvalDone] = {}
        self._version: int | None = None
        self._completed = -1
        self._origins: dict[tuple[int, int, str], tuple[str, str]] = {}
        """By version, index and digest of what came: for whom, and from whom. Another one may send other bytes for the same."""
        self._sent: dict[tuple[int, int], tuple[str, EvalActivation]] = {}

    @property
    def is_pending(self) -> bool:
        """Whether this head waits for answers."""
        return self._version is not None

    def begin(self) -> None:
        """As the first live head, evaluate if the completed rounds call for it."""
        desk = self.desk
        is_mine = desk.is_head and self._first_head() == desk.me.name
        # Whoever has announced the round's contributions knows from the first head's Have that the answers are in.
        begins = is_mine and self._is_due and self._completed < desk.round and not (desk.spec.is_async and self.is_pending)
        if begins and (desk.spec.is_async or desk.current().have is None):
            self._version, self._results = desk.round, {}
            self._ask()

    def may_step(self, state: RoundState) -> bool:
        """Whether this worker may agree to the round's step: not before the first head has its answers, and so agrees."""
        if self.desk.spec.is_async:
            return True
        first = self._first_head()
        waits_for_first = self.desk.is_head and self._is_due and first != self.desk.me.name and first not in state.haves
        return not self.is_pending and (not waits_for_first or state.have is not None)

    def on_peer_lost(self, lost: Peer) -> None:
        """Send again what a dead worker of the next stage held; the asking head asks again for whatever may be lost.

        Who sent it must do so: the head may have joined later than the death, and not hear of it. As the new first head, ask
        for all of it.
        """
        for target, message in list(self._sent.values()):
            if target == lost.name:
                self._send(message)
        if self._version is not None:
            self._ask()
        elif self.desk.state in ("active", "serving"):
            self.begin()

    def on_peer_found(self, peer: Peer) -> None:
        """Send on what waits for a worker that fills an empty stage."""
        for target, message in list(self._sent.values()):
            if not target and peer.stage == self.desk.me.stage + 1:
                self._send(message)

    def on_activation(self, source: str, message: EvalActivation) -> None:
        """Pass a validation micro-batch through this stage; one of an older version is dropped."""
        desk = self.desk
        if message.version == desk.round or (desk.spec.is_async and message.version < desk.spec.steps):
            self._forget_before(message.version)
            self._origins[message.version, message.index, message.payload.digest] = (message.origin, source)
            desk.compute(tasks.Evaluate(message.version, message.index, message.payload))

    def on_evaluated(self, task: tasks.Evaluate, done: tasks.EvaluateDone) -> None:
        desk = self.desk
        if task.inputs is None:
            origin = desk.me.name
        elif (key := (task.version, task.index, task.inputs.digest)) in self._origins:
            origin, _ = self._origins[key]
        else:
            return  # a newer validation has begun since
        if done.output is None:
            assert done.loss is not None
            if not math.isfinite(done.loss):
                raise RunError(f"the validation loss after {task.version} rounds is {done.loss}; lower the learning rate")
            answer = EvalDone(task.version, task.index, done.loss, done.tokens)
            if origin == desk.me.name:
                self.on_done(answer)
            else:
                desk.send(origin, answer)
            return
        self._forget_before(task.version)
        self._send(EvalActivation(task.version, task.index, origin, done.output))

    def on_refused(self, task: tasks.Evaluate, reason: str) -> None:
        """Give up who sent an activation that cannot be evaluated: the asking head hears of it and asks again."""
        assert task.inputs is not None
        told = self._origins.pop((task.version, task.index, task.inputs.digest), None)
        if told is not None:  # it may have come twice
            self.desk.expel_live(told[1], reason)

    def on_done(self, message: EvalDone) -> None:
        desk = self.desk
        if message.version != self._version:
            return
        self._results[message.index] = message
        if len(self._results) < desk.spec.eval_batches:
            return
        tokens = sum(result.tokens for result in self._results.values())
        # In the order of the indices, not of arrival: the sum must not depend on who was faster.
        loss = sum(self._results[index].loss for index in sorted(self._results)) / tokens
        desk.report("validation", round=message.version, loss=loss, tokens=tokens)
        self._version, self._completed = None, message.version
        self._on_complete()

    @property
    def _is_due(self) -> bool:
        desk, spec = self.desk, self.desk.spec
        is_regular = spec.eval_every > 0 and desk.round % spec.eval_every == 0
        # Before the round whose step turns the subspace, and after it. Each stage makes the step and the turn in one go, so
        # nobody can evaluate what is between them: the two losses differ by that step, too.
        is_by_turn = switches(spec, desk.round) or switches(spec, desk.round - 1)
        return desk.round > 0 and (desk.is_finished or is_regular or is_by_turn)

    def _first_head(self) -> str | None:
        heads = self.desk.roster.serving(0, self.desk.round)
        return heads[0].name if heads else None

    def _send(self, message: EvalActivation) -> None:
        """Send `message` to who serves it at the next stage, or keep it until somebody does."""
        desk, stage = self.desk, self.desk.me.stage + 1
        ready = desk.roster.ready(stage, message.version)
        peer = desk.roster.serve(stage=stage, round_=message.version, index=message.index, among=ready)
        self._sent[message.version, message.index] = ("" if peer is None else peer.name, message)
        if peer is not None:
            desk.send(peer.name, message)

    def _forget_before(self, version: int) -> None:
        if self.desk.spec.is_async:
            version -= 2 * self.desk.spec.eval_every  # nobody waits for a validation, so the last one may still be on its way
        self._origins = {key: origin for key, origin in self._origins.items() if key[0] >= version}
        self._sent = {key: sent for key, sent in self._sent.items() if key[0] >= version}

    def _ask(self) -> None:
        assert self._version is not None
        for index in range(self.desk.spec.eval_batches):
            if index not in self._results:
                self.desk.compute(tasks.Evaluate(self._version, index, None))
