"""What can befall a worker in a simulation, at a moment counted in events: so that a test can go through all of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kill:
    """Kill `worker` when the simulation has processed `after_events` events.

    `restart_s`: virtual seconds after which a fresh incarnation starts (None: never).
    `loses_wire`: bytes that it has sent and nobody has received are lost with it.
    """

    worker: str
    after_events: int
    restart_s: float | None = 1.0
    loses_wire: bool = True


@dataclass(frozen=True)
class Freeze:
    """Stop `worker` when the simulation has processed `after_events` events, as SIGSTOP would, for so many virtual seconds.

    It does and hears nothing meanwhile, and goes on where it was; nobody is told.
    """

    worker: str
    after_events: int
    for_s: float


@dataclass(frozen=True)
class Attachment:
    """`worker`, which the spec does not name, comes to `stage` when the simulation has processed `after_events` events."""

    worker: str
    stage: int
    after_events: int


@dataclass(frozen=True)
class Departure:
    """`worker` is asked to leave when the simulation has processed `after_events` events."""

    worker: str
    after_events: int
