"""What a route is: one entry of the table that makes both the handlers and the OpenAPI document."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pluralis_lab.server.refusals import Refusal
from pluralis_lab.server.shapes.base import Body

if TYPE_CHECKING:
    from pluralis_lab.server.lab import Lab

LINES = "application/x-ndjson"
"""JSON objects, one a line, as they come."""
Method = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True)
class Parameter:
    """A whole number, or text that matches `pattern`, in the query.

    Without a `default` it may be left out and is then None.
    """

    name: str
    description: str
    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None
    default: int | None = None
    is_required: bool = False

    def read(self, text: str | None) -> int | str | None:
        """Return the value of `text`. Raises Refusal (400) for one that is not allowed."""
        if text is None:
            if self.is_required:
                raise Refusal(400, f"{self.name} is missing: {self.description}")
            return self.default
        if self.pattern is not None:
            if re.fullmatch(self.pattern, text) is None:
                raise Refusal(400, f"{self.name}={text[:80]!r}: it must match {self.pattern}")
            return text
        low, high = self.minimum, self.maximum
        if (
            not re.fullmatch(r"-?[0-9]{1,18}", text)
            or not (low is None or int(text) >= low)
            or not (high is None or int(text) <= high)
        ):
            raise Refusal(400, f"{self.name}={text[:80]!r}: use a whole number from {low} to {high}")
        return int(text)


@dataclass(frozen=True)
class Call:
    """One request, checked: its place, its query, its body."""

    lab: "Lab"
    path: dict[str, str]
    query: dict[str, Any]
    body: Any


@dataclass(frozen=True)
class Text:
    """A reply that is not JSON."""

    data: bytes
    content_type: str


@dataclass(frozen=True)
class Stream:
    """A reply that comes line by line, each of them JSON.

    lines : its items; read to the end unless the client goes away
    close : called when the client has gone away; `lines` then ends soon
    """

    lines: AsyncGenerator[Any, None]
    close: Callable[[], None]


Operation = Callable[[Call], Any] | Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One method of one path.

    path : below ``pluralis-lab/api/``, with {id} and {process} in braces
    operation : a plain function runs in a thread, a coroutine on the loop; what it returns is the reply
    reply : the reply's shape, of each line where `media` is LINES; None: nothing (204), or text of `media`
    refusals : the statuses it may refuse with, besides those that every route has
    changes : refused in read-only mode
    """

    method: Method
    path: str
    operation: Operation
    summary: str
    reply: type | None = None
    status: int = 200
    body: type[Body] | None = None
    query: tuple[Parameter, ...] = ()
    refusals: tuple[int, ...] = ()
    changes: bool = False
    media: str = "application/json"

    @property
    def name(self) -> str:
        """A unique name, for the document."""
        return getattr(self.operation, "__name__", self.path)
