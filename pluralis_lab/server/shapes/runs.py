"""Runs: a row of the list, all facts of one, its events and logs, and what can be asked of it."""

from typing import Any, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict

from pluralis_lab.engines.invitation import MAX_SEATS
from pluralis_lab.server.shapes.base import EXACT, Body, Spec

RunState = Literal["starting", "running", "paused", "serving", "stopped", "failed", "damaged"]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"
"""An account's name, as the keystore has it."""


@with_config(EXACT)
class RunRow(TypedDict):
    """One line of the list of runs. Losses are nats a token, `created` is Unix seconds.

    `host` is where it listens for those who are invited, `own_data` how much of its micro-batches a worker draws from a text
    that it brings. While a run is live, `phases` counts its workers by state, `idle_workers` those that had next to nothing to
    do in the last rounds (null where there are too many workers to tell), and `bytes_per_s` is what is sent over all links.
    `stage_delay` is how many steps the gradients of the latest stage are late; null under the synchronous schedule.
    """

    id: str
    name: str
    state: RunState
    reason: str
    engine: str
    created: float
    data: str
    stages: int
    replicas: int
    workers: int
    live_workers: int | None
    phases: dict[str, int]
    idle_workers: int | None
    bytes_per_s: float | None
    stage_delay: float | None
    rounds_done: int
    steps: int
    loss: float | None
    validation: float | None
    tokens_per_s: float | None
    unigram_nats: float | None
    participants: list[str]
    account: str
    chain: str
    host: str
    own_data: float


@with_config(EXACT)
class RunList(TypedDict):
    """All runs, newest first."""

    runs: list[RunRow]


@with_config(EXACT)
class DiskUse(TypedDict):
    """What a run takes on the disk, in bytes."""

    events: int
    evidence: int
    checkpoints: int
    logs: int
    total: int


@with_config(EXACT)
class RunFacts(RunRow):
    """A run with its spec and what it takes."""

    spec: Spec
    spec_hash: str
    disk: DiskUse
    lifetime: str
    model_parameters: int
    stage_parameters: list[int]
    attesters: list[str]
    chain_id: int | None


@with_config(EXACT)
class RunEvent(TypedDict):
    """One event as it is stored; `time` is Unix seconds, virtual seconds in a simulation."""

    seq: int
    time: float | None
    kind: str
    worker: str | None
    round: int | None
    body: dict[str, Any]


@with_config(EXACT)
class EventPage(TypedDict):
    """Events in order, and the `since` that asks for those after them."""

    events: list[RunEvent]
    next: int


@with_config(EXACT)
class LogTail(TypedDict):
    """The end of a process's log."""

    process: str
    text: str


@with_config(EXACT)
class Started(TypedDict):
    """The id of a run that was started."""

    id: str


@with_config(EXACT)
class StateReply(TypedDict):
    """The state of a run after a command."""

    state: RunState


@with_config(EXACT)
class ServerStatus(TypedDict):
    """What this server is and allows."""

    version: str
    read_only: bool
    allowed_chains: list[str]
    python: str
    num_roots: int
    max_live_runs: int


@with_config(EXACT)
class Device(TypedDict):
    """What a worker can run on; of the processor only its word is known."""

    device: str
    name: str
    memory_bytes: int | None


@with_config(EXACT)
class DeviceList(TypedDict):
    """The devices of the server's machine, the processor first."""

    devices: list[Device]


@with_config(EXACT)
class Attached(TypedDict):
    """A worker that was added to a live run; it starts, gets its stage's state, and takes part."""

    worker: str
    stage: int
    replica: int
    participant: str


@with_config(EXACT)
class Invited(TypedDict):
    """An invitation. Whoever has its text may bring workers in: it is a secret, and in no file of the run.

    `until` is Unix seconds; where `is_local`, only processes of this machine reach `host`.
    """

    invitation: str
    seats: int
    until: float
    host: str
    port: int
    is_local: bool


class LaunchBody(Body):
    """Start a run on real workers of this machine."""

    spec: Spec = Field(description="a RunSpec as JSON; POST spec/check says whether it can work")
    account: str | None = Field(None, pattern=_NAME, description="the founder's account; default: 'default'")
    participants: list[str] | None = Field(None, min_length=1, max_length=1024, description="accounts that own the workers")
    chain: str = Field("embedded", max_length=2048, description="the chain of its ownership, for good")


class WorkerBody(Body):
    """One worker of a run."""

    worker: str = Field(pattern=r"^worker-[0-9]{1,6}$", description="its name, e.g. worker-3")


class AttachBody(Body):
    """Add one worker of this machine to a live run."""

    device: str = Field("cpu", pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$", description="cpu, or cuda:0 for the first GPU")
    stage: int | None = Field(None, ge=0, le=65_535, description="where it works; None: where there are fewest workers")
    account: str | None = Field(None, pattern=_NAME, description="who owns it, an account of this home; None: the founder")
    data: str | None = Field(
        None,
        pattern=r"^path:[^\x00-\x1f\x7f]{1,4000}$",
        description="path:FILE_OR_FOLDER, a text of this machine that it draws from; every stage can read that, as token ids",
    )


class InviteBody(Body):
    """Invite workers from other machines, or from other shells of this one."""

    seats: int = Field(1, ge=1, le=MAX_SEATS, description="how many workers may come with it")
    stage: int | None = Field(None, ge=0, le=65_535, description="where they work; None: where there are fewest workers")
    for_hours: float = Field(24.0, gt=0, le=8_760, description="how long it holds; who has come stays")


class AccountBody(Body):
    """An account of the embedded chain; None: the founder (claim: all accounts of this home)."""

    account: str | None = Field(None, pattern=_NAME, description="an account's name")


class PayBody(AccountBody):
    """Pay revenue to the owners of a run."""

    amount_eth: str = Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,18})?$", description="ether, e.g. 0.5")


class CheckBody(Body):
    """Check a spec without starting anything."""

    spec: Spec = Field(description="a RunSpec as JSON")


class EmptyBody(Body):
    """Nothing."""
