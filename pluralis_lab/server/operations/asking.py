"""Asking the model of a live run: its workers go on with a text, stage by stage, and it is sent on as it comes."""

import asyncio
import codecs
from collections.abc import AsyncGenerator

from pluralis_lab.engines.swarm.frames import read_json
from pluralis_lab.errors import WireError
from pluralis_lab.generation import connect_prompt
from pluralis_lab.server.route import Call, Stream
from pluralis_lab.server.shapes.asking import PromptBody, Written
from pluralis_lab.store import RunDirectory

ANSWER_BYTES = 1 << 20


async def generate_text(call: Call) -> Stream:
    """Have the live workers go on with a text: a line a token, the last with `is_last`, or with the `error` that ended it.

    Whoever asked may close the connection before that: then the workers write no more.
    """
    body: PromptBody = call.body
    run = call.lab.roots.find(call.path["id"])
    connection = await asyncio.to_thread(
        connect_prompt, run, run.info["corpus"], body.prompt, body.tokens, temperature=body.temperature, seed=body.seed
    )
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    return Stream(_written(run, reader), writer.close)


async def _written(run: RunDirectory, reader: asyncio.StreamReader) -> AsyncGenerator[Written, None]:
    """Yield the text in pieces; a character of several tokens comes with the last of them."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        try:
            answer = await read_json(reader, limit_bytes=ANSWER_BYTES)
        except WireError as error:
            answer = {"error": str(error)}
        if answer is None or answer.get("error"):
            why = answer["error"] if answer else "it ended before the text was complete"
            yield {"text": "", "is_last": True, "error": f"run {run.id[:8]}: {why}"}
            return
        is_last = bool(answer["is_last"])
        yield {"text": decoder.decode(bytes([answer["token"]]), final=is_last), "is_last": is_last, "error": ""}
        if is_last:
            return
