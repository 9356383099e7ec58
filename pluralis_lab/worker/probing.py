"""The loss on held-out micro-batches when somebody asks for it, with the weights that each stage has at that moment."""

import math
from dataclasses import dataclass, field

from pluralis_lab.learning import tasks
from pluralis_lab.learning.limits import MAX_QUESTIONS
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.events import Probed
from pluralis_lab.worker.inference import MAX_ATTEMPTS
from pluralis_lab.worker.messages import ProbeActivation, ProbeDone, ProbeMislaid
from pluralis_lab.worker.roster import Peer


@dataclass
class _Question:
    """What a head has of the answer so far, by index of the micro-batch; `failures` of the next one."""

    batches: int
    done: dict[int, ProbeDone] = field(default_factory=dict)
    failures: int = 0


class Probing:
    """A worker's part in such questions. One micro-batch of each is under way at a time, so that training is hardly held up."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._questions: dict[str, _Question] = {}
        self._origins: dict[tuple[str, int, str], tuple[str, str]] = {}
        """By question, index and digest of what came: for whom, and from whom. Another one may send other bytes for the same."""

    def on_probed(self, question: Probed) -> None:
        """As a head, begin to find out, or say why not."""
        desk = self.desk
        if not desk.is_head or desk.state not in ("active", "serving"):
            why = f"{desk.me.name} (stage {desk.me.stage}, {desk.state}) cannot evaluate; a live worker of stage 0 can"
            desk.answer(question.request, error=why, is_last=True)
        elif len(self._questions) >= MAX_QUESTIONS:
            desk.answer(
                question.request, error=f"{desk.me.name} evaluates {MAX_QUESTIONS} times already; wait for one", is_last=True
            )
        else:
            self._questions[question.request] = _Question(question.batches)
            self._ask(question.request)

    def on_withdrawn(self, request: str) -> None:
        self._questions.pop(request, None)

    def _ask(self, request: str) -> None:
        self.desk.compute(tasks.Probe(request, len(self._questions[request].done), None))

    def on_activation(self, source: str, message: ProbeActivation) -> None:
        """Pass a micro-batch through this stage."""
        self._origins[message.request, message.index, message.payload.digest] = (message.origin, source)
        self.desk.compute(tasks.Probe(message.request, message.index, message.payload))

    def on_probe_done(self, task: tasks.Probe, done: tasks.EvaluateDone) -> None:
        """Send on what this stage made of it, or as the tail the loss."""
        desk, stage = self.desk, self.desk.me.stage + 1
        origin = desk.me.name
        if task.inputs is not None:
            told = self._origins.pop((task.request, task.index, task.inputs.digest), None)
            if told is None:
                return  # it was asked for twice, and the first is on its way
            origin, _ = told
        if done.output is None:
            assert done.loss is not None
            answer = ProbeDone(task.request, task.index, done.loss, done.tokens)
            if origin == desk.me.name:
                self.on_done(answer)
            else:
                desk.send(origin, answer)
            return
        peer = desk.roster.serve(stage=stage, round_=desk.round, index=task.index, among=desk.roster.ready(stage, desk.round))
        if peer is not None:
            desk.send(peer.name, ProbeActivation(task.request, task.index, origin, done.output))
            return
        mislaid = ProbeMislaid(task.request, task.index, f"stage {stage} has no live worker at the moment")
        if origin == desk.me.name:
            self.on_mislaid(mislaid)
        else:
            desk.send(origin, mislaid)

    def on_done(self, message: ProbeDone) -> None:
        """As the head, add a micro-batch's loss, and answer when it was the last one."""
        question = self._questions.get(message.request)
        if question is None or message.index != len(question.done):
            return
        question.done[message.index] = message
        question.failures = 0
        if len(question.done) < question.batches:
            self._ask(message.request)
            return
        del self._questions[message.request]
        tokens = sum(done.tokens for done in question.done.values())
        loss = sum(done.loss for done in question.done.values()) / tokens
        if math.isfinite(loss):
            self.desk.answer(message.request, loss=loss, tokens=tokens, is_last=True)
        else:
            self.desk.answer(message.request, error=f"the loss is {loss}", is_last=True)

    def on_mislaid(self, message: ProbeMislaid) -> None:
        """As the head, ask for a micro-batch again, unless that has failed too often."""
        question = self._questions.get(message.request)
        if question is None or message.index != len(question.done):
            return
        question.failures += 1
        if question.failures < MAX_ATTEMPTS:
            self._ask(message.request)
            return
        del self._questions[message.request]
        self.desk.answer(message.request, error=message.reason, is_last=True)

    def on_refused(self, task: tasks.Probe, reason: str) -> None:
        """Give up who sent an activation that cannot be evaluated; the head hears of it and asks again."""
        assert task.inputs is not None
        told = self._origins.pop((task.request, task.index, task.inputs.digest), None)
        if told is not None:  # it may have come twice
            self.desk.expel_live(told[1], reason)

    def on_peer_lost(self, lost: Peer) -> None:
        """As a head, ask again for what may have been with the dead worker."""
        if lost.stage > 0:
            for request in self._questions:
                self._ask(request)

    def on_peer_found(self, peer: Peer) -> None:
        """As a head, ask again for what found an empty stage."""
        if peer.stage > 0 and peer.since is not None:
            for request in self._questions:
                self._ask(request)
