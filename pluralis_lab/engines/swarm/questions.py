"""Questions to the model from outside: which head answers, and what becomes of the answer when that head dies."""

import asyncio
import contextlib
import math
import secrets
from dataclasses import dataclass, field
from typing import Any

from pluralis_lab.engines.swarm.frames import json_frame
from pluralis_lab.engines.swarm.seats import Seats

MAX_TOKENS = 1_000_000
"""Of a prompt, and of what is written after it."""
MAX_BATCHES = 4096


@dataclass
class _Question:
    """A question under way: what the head was told, who that is, what it has said, and the answers that are still to be sent."""

    told: dict[str, Any]
    head: str = ""
    drawn: list[int] = field(default_factory=list)
    answers: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


class Questions:
    """Hands questions to heads, and their answers back.

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
        try:
            self._ask(question)
            while not gone.done():
                coming = asyncio.create_task(question.answers.get())
                await asyncio.wait([coming, gone], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    break
                writer.write(json_frame(coming.result()))
                await writer.drain()
                if coming.result()["is_last"]:
                    return
            self._tell(question.head, op="withdraw", request=request)
        finally:
            del self._open[request]
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await gone

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
                self._ask(question)

    def _ask(self, question: _Question) -> None:
        """Give the question to the live head that has the fewest."""
        heads = [seat.name for seat in self._seats if seat.stage == 0 and seat.holds_state]
        if not heads:
            error = "no worker of stage 0 is there to begin with; wait until the run has started, or run.resume() it"
            question.answers.put_nowait({"error": error, "is_last": True})
            return
        busy = [other.head for other in self._open.values()]
        question.head = min(heads, key=busy.count)
        drawn = {"drawn": question.drawn} if question.told["op"] == "prompt" else {}
        self._tell(question.head, **question.told, **drawn)

    def _tell(self, name: str, **message: Any) -> None:
        seat = self._seats.get(name)
        if seat is not None:
            seat.say(**message)

    def _why_not(self, asked: dict[str, Any]) -> str | None:
        """Say what is wrong with a question, None for a sound one."""
        if asked["op"] == "probe":
            batches = asked.get("batches")
            is_sound = type(batches) is int and 1 <= batches <= MAX_BATCHES and asked.keys() == {"op", "token", "batches"}
            return None if is_sound else f"batches={str(batches)[:40]}; use a whole number from 1 to {MAX_BATCHES}"
        ids, tokens, seed = (asked.get(key) for key in ("ids", "tokens", "seed"))
        temperature: Any = asked.get("temperature")
        if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_TOKENS:
            return f"a prompt has from 1 to {MAX_TOKENS:,} tokens"
        if not all(type(token) is int and 0 <= token < self._vocab for token in ids):
            return f"the prompt has tokens that the model does not know; it knows 0 to {self._vocab - 1}"
        if type(tokens) is not int or not 1 <= tokens <= MAX_TOKENS:
            return f"tokens={str(tokens)[:40]}; use a whole number from 1 to {MAX_TOKENS:,}"
        if type(temperature) not in (int, float) or not 0 <= temperature < math.inf:
            return f"temperature={str(temperature)[:40]}; use 0 for the likeliest token, or a number above"
        if type(seed) is not int or not 0 <= seed < 2**63:
            return f"seed={str(seed)[:40]}; use a whole number from 0 to 2**63 - 1"
        return None
