"""Writing a text through the stages: the head sends each token's way, the tail draws the next one and tells the head.

Every worker on the way keeps what its own attention has seen, and nobody else does. Whatever goes wrong, a worker that dies or a
cache that was forgotten, the head begins the text anew with what it has so far; since what is drawn depends on the seed and the
position alone, the text goes on as it would have.
"""

from dataclasses import dataclass

from pluralis_lab.learning import tasks
from pluralis_lab.learning.limits import MAX_QUESTIONS
from pluralis_lab.learning.payload import Payload
from pluralis_lab.parts import GPT
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.events import Prompted
from pluralis_lab.worker.messages import Ended, InferActivation, Mislaid, Token
from pluralis_lab.worker.roster import Peer

MAX_ATTEMPTS = 8
"""Beginnings without one more token, after which the asker hears why."""


@dataclass
class _Text:
    """A text under way at its head. start : positions that the caches have seen; base : where in the text they begin."""

    prompt: Prompted
    ids: list[int]
    attempt: int = 0
    start: int = 0
    base: int = 0
    failures: int = 0

    @property
    def num_drawn(self) -> int:
        return len(self.ids) - len(self.prompt.ids)


@dataclass
class _Way:
    """Where an attempt at a text came from and goes to, at one worker on its way."""

    origin: str
    source: str = ""
    target: str = ""


class Inference:
    """A worker's part in the texts that are being written."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._texts: dict[str, _Text] = {}
        self._ways: dict[tuple[str, int], _Way] = {}
        self._max_ways = 4 * MAX_QUESTIONS * desk.spec.replicas

    def on_prompted(self, prompt: Prompted) -> None:
        """As a head, begin a text, or say why not."""
        desk = self.desk
        if (why := self._why_not(prompt)) is not None:
            desk.answer(prompt.request, error=why, is_last=True)
            return
        self._texts[prompt.request] = _Text(prompt, [*prompt.ids, *prompt.drawn])
        self._begin(self._texts[prompt.request])

    def _why_not(self, prompt: Prompted) -> str | None:
        desk = self.desk
        if desk.spec.context is None:
            return "this model reads vectors and writes no text"
        if not isinstance(desk.spec.model, GPT):
            return (
                "its blocks keep no keys and values of a text, so it writes none; a pl.GPT does (run.evaluate() works for both)"
            )
        if not desk.is_head or desk.state not in ("active", "serving"):
            return f"{desk.me.name} (stage {desk.me.stage}, {desk.state}) cannot begin a text; a live worker of stage 0 can"
        if len(self._texts) >= MAX_QUESTIONS:
            return f"{desk.me.name} writes {MAX_QUESTIONS} texts already; wait for one of them"
        return None

    def on_withdrawn(self, request: str) -> None:
        """Stop writing a text that nobody waits for."""
        text = self._texts.pop(request, None)
        if text is not None:
            self._end(request, text.attempt)

    def _begin(self, text: _Text) -> None:
        """Send the text so far on its way; of one longer than the context, so much of its end as `window_start` says."""
        self._end(text.prompt.request, text.attempt)
        text.base = window_start(len(text.ids), self._context)
        text.attempt += 1
        text.start = 0
        self._infer(text)

    def _infer(self, text: _Text) -> None:
        request, ids = text.prompt.request, text.ids[text.base + text.start :]
        draw = tasks.Draw(len(text.ids), text.prompt.temperature, text.prompt.seed)
        self._ways.setdefault((request, text.attempt), _Way(self.desk.me.name))
        self.desk.compute(tasks.Infer(request, text.attempt, text.start, tuple(ids), None, draw))

    def on_activation(self, source: str, message: InferActivation) -> None:
        """Take a text's next positions through this stage."""
        way = self._ways.setdefault((message.request, message.attempt), _Way(message.origin))
        way.origin, way.source = message.origin, source
        while len(self._ways) > self._max_ways:  # of a text whose end nobody could tell this worker
            self._end(*next(iter(self._ways)))
        draw = tasks.Draw(message.position, message.temperature, message.seed)
        self.desk.compute(tasks.Infer(message.request, message.attempt, message.start, (), message.payload, draw))

    def on_inferred(self, task: tasks.Infer, done: tasks.InferDone) -> None:
        """Pass on what this stage made of it, or as the tail the token."""
        way = self._ways.get((task.request, task.attempt))
        if way is None:
            return  # it was ended meanwhile
        if done.token is not None:
            self._tell(way.origin, Token(task.request, task.attempt, task.draw.position, done.token))
        elif done.output is None:
            self._tell(way.origin, Mislaid(task.request, task.attempt, f"{self.desk.me.name} had to forget the text"))
        else:
            self._pass_on(task, way, done.output)

    def _pass_on(self, task: tasks.Infer, way: _Way, output: Payload) -> None:
        desk, stage, draw = self.desk, self.desk.me.stage + 1, task.draw
        if task.start == 0:  # the whole text goes the way of its beginning: there are its caches
            ready = desk.roster.ready(stage, desk.round)
            peer = desk.roster.serve(stage=stage, round_=desk.round, index=int(task.request, 16), among=ready)
            way.target = "" if peer is None else peer.name
        if not desk.roster.is_live(way.target):
            self._tell(way.origin, Mislaid(task.request, task.attempt, f"stage {stage} has no live worker at the moment"))
            return
        sent = (task.request, task.attempt, way.origin, task.start, draw.position, draw.temperature, draw.seed, output)
        desk.send(way.target, InferActivation(*sent))

    def _tell(self, origin: str, message: Token | Mislaid) -> None:
        if origin != self.desk.me.name:
            self.desk.send(origin, message)
        elif isinstance(message, Token):
            self.on_token(message)
        else:
            self.on_mislaid(message)

    def on_token(self, message: Token) -> None:
        """As the head, take the next token, tell who asked, and go on."""
        text = self._texts.get(message.request)
        if text is None or text.attempt != message.attempt or message.position != len(text.ids):
            return
        text.start = len(text.ids) - text.base
        text.ids.append(message.token)
        text.failures = 0
        is_last = text.num_drawn >= text.prompt.tokens
        self.desk.answer(message.request, token=message.token, is_last=is_last)
        if is_last:
            del self._texts[message.request]
            self._end(message.request, message.attempt)
        elif text.start >= self._context:
            self._begin(text)
        else:
            self._infer(text)

    @property
    def _context(self) -> int:
        assert isinstance(self.desk.spec.model, GPT)
        return self.desk.spec.model.context

    def on_mislaid(self, message: Mislaid) -> None:
        """As the head, begin the text anew, unless that has failed too often."""
        text = self._texts.get(message.request)
        if text is None or text.attempt != message.attempt:
            return
        text.failures += 1
        if text.failures < MAX_ATTEMPTS:
            self._begin(text)
            return
        del self._texts[message.request]
        self.desk.answer(message.request, error=message.reason, is_last=True)
        self._end(message.request, message.attempt)

    def on_ended(self, message: Ended) -> None:
        self._end(message.request, message.attempt)

    def on_refused(self, task: tasks.Infer, reason: str) -> None:
        """Give up who sent what cannot be computed; the head begins anew when it hears of that."""
        way = self._ways.pop((task.request, task.attempt), None)
        if way is not None:
            self.desk.expel_live(way.source, reason)

    def on_peer_lost(self, lost: Peer) -> None:
        """As a head, begin anew whatever may have been with the dead worker; forget what was for it, or came by it.

        What came by it comes no more, and the end of it would not either: the head begins it anew, maybe another way.
        """
        for key in [key for key, way in self._ways.items() if lost.name in (way.origin, way.source)]:
            self._end(*key)
        if lost.stage > 0:
            for text in list(self._texts.values()):
                self._begin(text)

    def _end(self, request: str, attempt: int) -> None:
        """Forget that attempt at a text here, and along its way."""
        way = self._ways.pop((request, attempt), None)
        if way is not None:
            self.desk.compute(tasks.EndInference(request, attempt))
            if way.target:
                self.desk.send(way.target, Ended(request, attempt))


def window_start(length: int, context: int) -> int:
    """Return from which token on a text of `length` is given to a model of `context`.

    0 while all of it fits. When it does not, all but the last half of the context goes, and the caches are filled anew. A
    function of the length alone, so that whoever begins the text anew does it with the same.
    """
    step = context + 1 - context // 2
    return -(-(length - context) // step) * step if length > context else 0
