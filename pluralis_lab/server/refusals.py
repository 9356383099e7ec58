"""Why a request is refused: a status, a sentence that names the value and the remedy, and a word for programs."""

from tornado.web import HTTPError

WORDS = {
    400: "invalid",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "no-such-method",
    409: "conflict",
    413: "too-large",
    500: "bug",
    503: "busy",
}


class Refusal(HTTPError):
    """A refused request; `message` goes to the client, `word` is its machine-readable kind."""

    def __init__(self, status: int, message: str, word: str = "") -> None:
        super().__init__(status)
        self.message = message
        self.word = word or WORDS[status]


def no_such_run(run_id: str) -> Refusal:
    """The same answer for a run that is not there, is not ours or has no proper id: nothing is told about other people's."""
    return Refusal(404, f"there is no run {run_id[:80]!r} under this server's roots; GET runs lists those that are there")
