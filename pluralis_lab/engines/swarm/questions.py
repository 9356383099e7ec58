"""Questions to the model from outside: which head answers, and what becomes of the answer when that head dies."""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from pluralis_lab.engines.question_checks import check_batches, check_prompt
from pluralis_lab.engines.swarm.frames import json_frame
from pluralis_lab.engines.swarm.seats import Seats
from pluralis_lab.errors import RunError
from pluralis_lab.learning.limits import MAX_QUESTIONS


@dataclass
class _Question:
    """A question under way: what the head is told, what it has said, and the answers that are still to be sent.

    head : who has it, "" while it waits for one with room
    """

    told: dict[str, Any]
    head: str = ""
    drawn: list[int] = field(default_factory=list)
    answers: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


MAX_WAITING = 64
"""Questions that may wait for a head with room."""


class Questions:
    """Hands questions to heads, as many as those answer at once, in the order they came; and their answers back.

    vocab : token ids are below this
    """

    def __init__(self, seats: Seats, *, vocab: int) -> None:
        self._seats, self._vocab = seats, vocab
        self._open: dict[str, _Question] = {}

    async def serve(self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on `writer` until all is said, or whoever asked has gone."""
        if (why := self._why_not(asked)) is not None:
            writer.write(json_frame({"error": why, "is_last": True}))
            await writer.drain()
            return
        request = secrets.token_hex(8)
        question = _Question({"request": request, **{key: value for key, value in asked.items() if key != "token"}})
        self._open[request] = question
        gone = asyncio.create_task(reader.read())
        is_answered = False
        try:
            self._ask_waiting()
            while not (is_answered or gone.done()):
                coming = asyncio.create_task(question.answers.get())
                await asyncio.wait([coming, gone], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    break
                writer.write(json_frame(coming.result()))
                await writer.drain()
                is_answered = coming.result()["is_last"]
        finally:
            if not is_answered:
                self._tell(question.head, op="withdraw", request=request)
            del self._open[request]
            self._ask_waiting()  # after the withdrawal, on the same ordered stream: the head has room when the next one comes
            gone.cancel()
            await asyncio.wait([gone])

    def on_answer(self, answer: dict[str, Any]) -> None:
        """Take a head's answer to where it was asked for."""
        question = self._open.get(answer["request"])
        if question is not None:
            if answer["token"] is not None:
                question.drawn.append(answer["token"])
            question.answers.put_nowait(answer)

    def on_head_gone(self, name: str) -> None:
        """Have another head go on with what the dead one was asked."""
        for question in self._open.values():
            if question.head == name:
                question.head = ""
        self._ask_waiting()

    def end_all(self, error: str) -> None:
        """Tell everybody who waits for an answer that there will be none."""
        for question in self._open.values():
            question.answers.put_nowait({"error": error, "is_last": True})

    def _ask_waiting(self) -> None:
        """Give each question that waits to the live head that has the fewest, while one has room."""
        heads = [seat.name for seat in self._seats if seat.stage == 0 and seat.holds_state]
        for question in self._open.values():
            if question.head:
                continue
            if not heads:
                error = "no worker of stage 0 is there to begin with; wait until the run has started, or run.resume() it"
                question.answers.put_nowait({"error": error, "is_last": True})
                continue
            busy = [other.head for other in self._open.values()]
            least = min(heads, key=busy.count)
            if busy.count(least) >= MAX_QUESTIONS:
                return
            question.head = least
            drawn = {"drawn": question.drawn} if question.told["op"] == "prompt" else {}
            self._tell(least, **question.told, **drawn)

    def _tell(self, name: str, **message: Any) -> None:
        seat = self._seats.get(name)
        if seat is not None:
            seat.say(**message)

    def _why_not(self, asked: dict[str, Any]) -> str | None:
        """Say what is wrong with a question, None for a sound one."""
        if sum(not question.head for question in self._open.values()) >= MAX_WAITING:
            return f"{MAX_WAITING} questions wait already; ask again when some are answered"
        try:
            if asked["op"] == "probe":
                check_batches(asked.get("batches"))
            else:
                ids, tokens, temperature, seed = (asked.get(key) for key in ("ids", "tokens", "temperature", "seed"))
                check_prompt(ids, tokens, temperature, seed, vocab=self._vocab)
        except RunError as error:
            return str(error)
        return None
