"""What a worker wants done: the outputs of its state machine, executed by an engine in the order given."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pluralis_lab.learning.tasks import Task
from pluralis_lab.worker.messages import Message


@dataclass(frozen=True)
class Send:
    """Deliver `message` to worker `target`, in order with the others to the same target; lost only if the target dies."""

    target: str
    message: Message


@dataclass(frozen=True)
class Compute:
    """Run `task` and hand back `Computed`: one at a time, and in order but for what the schedule puts last (`TaskQueue`)."""

    task: Task


@dataclass(frozen=True)
class Store:
    """Keep the worker's state of `version` completed rounds in its own folder."""

    version: int
    state: bytes = field(repr=False)
    digest: str


@dataclass(frozen=True)
class Report:
    """Tell whoever records the run. Durable before any later effect is seen by another worker.

    kind : "state", "round", "work", "exchange", "statements", "validation", "reroute", "stalled", "unmet" or "checkpoint"
    """

    kind: Literal["state", "round", "work", "exchange", "statements", "validation", "reroute", "stalled", "unmet", "checkpoint"]
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Tell whoever asked `request` one more thing: a `token`, or the `loss` over so many `tokens`, or the `error`."""

    request: str
    token: int | None = None
    loss: float | None = None
    tokens: int = 0
    error: str = ""
    is_last: bool = False


@dataclass(frozen=True)
class Expel:
    """Give up this incarnation of `worker`, which broke the protocol: close its streams, then hand back `PeerLost`."""

    worker: str
    incarnation: int
    reason: str


@dataclass(frozen=True)
class SetAside:
    """Set this incarnation of `worker` aside, of whom nothing was heard for `silent_s` seconds: `reason` says what is wrong.

    The engine decides, so that of two who accuse each other only one is set aside: then everybody gets `PeerLost`, and the one
    that was meant joins as its next incarnation as soon as it answers. Not granted, nothing comes of it.
    """

    worker: str
    incarnation: int
    silent_s: float
    reason: str


@dataclass(frozen=True)
class SetTimer:
    """Hand back `Woken` after so many seconds; None: not at all. It replaces the timer that was set before."""

    after_s: float | None


@dataclass(frozen=True)
class Left:
    """End this worker: it was asked to leave, and nobody waits for anything from it."""


Effect = Send | Compute | Store | Report | Answer | Expel | SetAside | SetTimer | Left
