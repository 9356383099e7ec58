"""What comes back when one asks the model something: a text that is being written, or a loss."""

import codecs
import math
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pluralis_lab.engines import processes
from pluralis_lab.engines.question_checks import check_prompt
from pluralis_lab.errors import RunError
from pluralis_lab.markup import facts
from pluralis_lab.session import is_interactive
from pluralis_lab.store import RunDirectory


@dataclass(frozen=True)
class HeldOutLoss:
    """The mean `loss` in nats over so many held-out `tokens` (samples, for a model of vectors)."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """e to the loss: among how many equally likely tokens the model hesitates."""
        return math.exp(self.loss)

    def _repr_html_(self) -> str:
        rows = [
            ("loss", f"{self.loss:.4f} nats"),
            ("perplexity", f"{self.perplexity:.3g}"),
            ("held-out tokens", f"{self.tokens:,}"),
        ]
        return facts("HeldOutLoss", rows)

    def __str__(self) -> str:
        return f"{self.loss:.4f} nats over {self.tokens:,} held-out tokens (perplexity {self.perplexity:.3g})"


class Generation:
    """A text that a run's workers are writing. They have begun; it is read here as it comes.

    Show it in a cell and it appears piece by piece; ``for piece in generation`` gives the pieces; ``str(generation)`` waits for
    all of it, prompt included.

    Raises
    ------
    RunError : while it is read, when the run cannot go on with it
    """

    def __init__(self, directory: RunDirectory, prompt: str, tokens: int, connection: socket.socket) -> None:
        self._run_id, self.prompt, self._wanted = directory.id, prompt, tokens
        self._connection = connection
        self._answers = processes.answers(directory, "prompt", connection)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[str] = []
        self.tokens: list[int] = []
        """The tokens that have come so far, without the prompt's."""
        self.is_complete = False

    def __iter__(self) -> Iterator[str]:
        """Yield the text after the prompt in pieces: those that have come, then each as it comes."""
        position = 0
        while position < len(self._pieces) or self._read():
            yield from self._pieces[position : (position := len(self._pieces))]

    def _read(self) -> bool:
        """Wait for one more token; False when there is none to come."""
        if self.is_complete:
            return False
        answer = next(self._answers, None)
        if answer is None or answer.get("error"):
            self.close()
            why = answer["error"] if answer else "it ended before the text was complete"
            raise RunError(f"run {self._run_id[:8]}: {why}")
        self.tokens.append(answer["token"])
        if answer["is_last"]:
            self.close()
            self.is_complete = True
        self._pieces.append(self._decoder.decode(bytes([answer["token"]]), final=self.is_complete))
        return True

    def close(self) -> None:
        """Have the workers stop writing, if they still do."""
        self._answers.close()
        self._connection.close()

    @property
    def text(self) -> str:
        """The prompt and all that was written after it; waits for it."""
        return self.prompt + "".join(self)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        so_far = self.prompt + "".join(self._pieces)
        shown = so_far if len(so_far) <= 60 else so_far[:59] + "…"
        return f"<Generation of run {self._run_id[:8]}, {len(self.tokens)} of {self._wanted} tokens: {shown!r}>"

    def _repr_html_(self) -> str:
        """The text as far as it has come; shown where no cell can be written to piece by piece."""
        return facts(repr(self).split(":")[0].strip("<"), [("prompt", self.prompt), ("text", "".join(self._pieces) or "…")])

    def _ipython_display_(self, **_: Any) -> None:
        """Write the text into the cell as it comes; headless, in one piece, so that it is one output."""
        try:
            if not is_interactive():
                print(self.text)
                return
            sys.stdout.write(self.prompt)
            for piece in self:
                sys.stdout.write(piece)  # the kernel sends on what was written a few times a second
            sys.stdout.write("\n")
        finally:
            self.close()  # an interrupted cell is no longer waited for


def connect_prompt(
    run: RunDirectory, corpus: dict[str, Any], prompt: str, tokens: int, *, temperature: float, seed: int
) -> socket.socket:
    """Ask a run's workers to go on with `prompt`; return the connection that the tokens come on. See `Run.generate`.

    corpus : as `run.json` describes it
    """
    ids = prompt_ids(prompt, corpus["kind"])
    check_prompt(ids, tokens, temperature, seed, vocab=corpus["vocab"])
    return processes.connect(run, "prompt", ids=ids, tokens=tokens, temperature=temperature, seed=seed)


def prompt_ids(prompt: str, kind: str) -> list[int]:
    """Return the token ids of `prompt`: its bytes. Raises RunError for an empty one, and for a model that reads vectors."""
    if kind != "tokens":
        raise RunError("this run's model reads vectors and writes no text; run.evaluate() asks for its loss")
    if not isinstance(prompt, str) or not prompt:
        raise RunError(f"prompt={prompt!r:.40}; give the text to go on from, at least one character")
    try:
        return list(prompt.encode())
    except UnicodeEncodeError as error:
        raise RunError(f"the prompt has a character that is none ({error.reason}); give text that can be encoded") from None
