"""Validation through the stages: one head sends held-out micro-batches along, the tail answers with their loss.

All stages must evaluate the same weights. A stage steps only after the stage before it, so it is enough that this head does
not agree to its own stage's next step until every answer is in.
"""

from collections.abc import Callable

from pluralis_lab.learning import tasks
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import EvalActivation, EvalDone
from pluralis_lab.worker.roster import pick


class Evaluation:
    """Asks for, passes on and collects validation losses. `on_complete` is called when a version's answers are all in."""

    def __init__(self, desk: Desk, on_complete: Callable[[], None]) -> None:
        self.desk, self._on_complete = desk, on_complete
        self._results: dict[int, EvalDone] = {}
        self._version: int | None = None
        self._completed = -1
        self._origins: dict[tuple[int, int], str] = {}

    @property
    def is_pending(self) -> bool:
        """Whether this head waits for answers."""
        return self._version is not None

    def begin(self) -> None:
        """As the first live head, evaluate if the completed rounds call for it."""
        desk = self.desk
        every = desk.spec.eval_every
        is_due = desk.round > 0 and (desk.is_finished or (every > 0 and desk.round % every == 0))
        heads = desk.roster.serving(0, desk.round)
        is_mine = desk.is_head and bool(heads) and heads[0].name == desk.me.name
        if is_mine and is_due and self._completed < desk.round:
            self._version, self._results = desk.round, {}
            self._ask()

    def on_peer_lost(self) -> None:
        """Ask again for what a dead worker may have held; as the new first head, for all of it."""
        if self._version is not None:
            self._ask()
        elif self.desk.state in ("active", "serving"):
            self.begin()

    def on_activation(self, message: EvalActivation) -> None:
        """Pass a validation micro-batch through this stage; one of an older version is dropped."""
        if message.version == self.desk.round:
            self._origins = {key: origin for key, origin in self._origins.items() if key[0] == message.version}
            self._origins[message.version, message.index] = message.origin
            self.desk.compute(tasks.Evaluate(message.version, message.index, message.payload))

    def on_evaluated(self, task: tasks.Evaluate, done: tasks.EvaluateDone) -> None:
        desk = self.desk
        origin = self._origins.get((task.version, task.index), desk.me.name)
        if done.output is None:
            assert done.loss is not None
            answer = EvalDone(task.version, task.index, done.loss, done.tokens)
            if origin == desk.me.name:
                self.on_done(answer)
            else:
                desk.send(origin, answer)
            return
        stage = desk.me.stage + 1
        candidates = desk.roster.serving(stage, task.version)
        peer = pick(candidates, stage=stage, round_=task.version, index=task.index, replicas=desk.spec.replicas)
        if peer is not None:
            desk.send(peer.name, EvalActivation(task.version, task.index, origin, done.output))

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

    def _ask(self) -> None:
        assert self._version is not None
        for index in range(self.desk.spec.eval_batches):
            if index not in self._results:
                self.desk.compute(tasks.Evaluate(self._version, index, None))
