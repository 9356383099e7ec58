"""What can happen to a worker: the inputs of its state machine."""

from dataclasses import dataclass

from pluralis_lab.learning.tasks import Result, SyncMark, Task
from pluralis_lab.worker.messages import Message
from pluralis_lab.worker.roster import Peer


@dataclass(frozen=True)
class Started:
    """The engine has connected this worker to `peers` (without itself).

    `founding` workers begin at once; a later incarnation joins: it asks a replica of its stage for the state first.
    `mark`: where a founding worker stood when it wrote the checkpoint that it begins with. `on_trial`: the incarnation before
    was set aside, so this one is dealt one micro-batch first.
    """

    peers: tuple[Peer, ...]
    founding: bool
    mark: SyncMark | None = None
    on_trial: bool = False


@dataclass(frozen=True)
class Received:
    """`message` came from worker `source`, whom the engine has identified by its connection."""

    source: str
    message: Message


@dataclass(frozen=True)
class Computed:
    """The arithmetic of `task` is done, and took so many `seconds`."""

    task: Task
    result: Result
    seconds: float


@dataclass(frozen=True)
class Refused:
    """The arithmetic refused the inputs of `task`, which a peer sent: `reason` says what is wrong with them."""

    task: Task
    reason: str


@dataclass(frozen=True)
class PeerLost:
    """The engine is sure that this incarnation of `worker` is gone: its process ended, or its connection broke for good."""

    worker: str
    incarnation: int


@dataclass(frozen=True)
class Prompted:
    """Somebody wants the text `ids` to go on by `tokens` tokens, drawn with `temperature` and `seed`; asked of a head.

    drawn : tokens of it that another head has drawn already, and that are not wanted again
    """

    request: str
    ids: tuple[int, ...]
    tokens: int
    temperature: float
    seed: int
    drawn: tuple[int, ...] = ()


@dataclass(frozen=True)
class Probed:
    """Somebody wants the mean loss over `batches` held-out micro-batches with the weights as they are now; asked of a head."""

    request: str
    batches: int


@dataclass(frozen=True)
class Withdrawn:
    """Nobody waits for `request` any more."""

    request: str


@dataclass(frozen=True)
class Enrolled:
    """The run has one more worker, `key` of which its participant has authorised; it will say hello."""

    worker: str
    stage: int
    replica: int
    key: str


@dataclass(frozen=True)
class Leave:
    """The owner wants this worker to leave, as soon as nobody needs it."""


@dataclass(frozen=True)
class Woken:
    """The time of the last `SetTimer` has passed."""


Event = Started | Received | Computed | Refused | PeerLost | Prompted | Probed | Withdrawn | Enrolled | Leave | Woken
