"""The worker as a state machine: events in, effects out; no socket, no clock, no thread, no tensor arithmetic.

Both engines drive the same `Worker`: what is proven in virtual time is the code that runs on the wire.
"""

from pluralis_lab.spec import worker_name
from pluralis_lab.worker.effects import Answer, Compute, Effect, Expel, Left, Report, Send, SetAside, SetTimer, Store
from pluralis_lab.worker.events import (
    Computed,
    Enrolled,
    Event,
    Leave,
    PeerLost,
    Probed,
    Prompted,
    Received,
    Refused,
    Started,
    Withdrawn,
    Woken,
)
from pluralis_lab.worker.machine import Worker
from pluralis_lab.worker.roster import Peer

__all__ = [
    "Answer",
    "Compute",
    "Computed",
    "Effect",
    "Enrolled",
    "Event",
    "Expel",
    "Leave",
    "Left",
    "Peer",
    "PeerLost",
    "Probed",
    "Prompted",
    "Received",
    "Refused",
    "Report",
    "Send",
    "SetAside",
    "SetTimer",
    "Started",
    "Store",
    "Withdrawn",
    "Woken",
    "Worker",
    "worker_name",
]
