"""The picture of a run: version 1 of `application/vnd.pluralis.run+json`, with a few figures that only a server has."""

from typing import Any, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from pluralis_lab.server.shapes.base import EXACT


@with_config(EXACT)
class Curve(TypedDict):
    """Values over rounds, thinned so that extremes survive."""

    x: list[int]
    y: list[float | None]


@with_config(EXACT)
class WorkerPicture(TypedDict):
    """One worker. The figures of processes are of this machine's workers while they run, else absent.

    `busy` is seconds of compute over seconds of the run's clock in its last 20 rounds; `idle`: that is next to nothing, while it
    takes part in a run that trains.
    """

    name: str
    stage: int
    replica: int
    participant: str
    state: str
    reason: str
    device: str
    pid: int | None
    incarnation: int
    deaths: int
    parameters: int | None
    round: int | None
    delay: float | None
    busy: float | None
    idle: bool
    tokens: float | None
    work_flops: float | None
    share: float | None
    bytes_per_s: float | None
    bytes_out: float | None
    grad_norm: Curve
    agreement: Curve
    silent_s: NotRequired[float | None]
    cpu_percent: NotRequired[float | None]
    memory_bytes: NotRequired[int | None]
    gpu_percent: NotRequired[float | None]
    gpu_memory_bytes: NotRequired[int | None]


@with_config(EXACT)
class ParticipantPicture(TypedDict):
    """One participant: its share of the work seen and of the tokens given out."""

    name: str
    work_share: float | None
    owned: float | None
    owned_wei: str


@with_config(EXACT)
class EpochPicture(TypedDict):
    """One closed epoch."""

    epoch: int
    round: int
    shares: dict[str, float | None]
    statements: int
    unpaid: int
    attested_by: list[str]


@with_config(EXACT)
class Mark(TypedDict):
    """Something that happened once: a death, a return, re-routed micro-batches."""

    kind: str
    round: int
    worker: str
    text: str


@with_config(EXACT)
class OwnText(TypedDict):
    """A text that a worker brought, of `size` tokens; `tokens` were drawn from it, `share` of all that were trained on."""

    worker: str
    participant: str
    corpus: str
    hash: str
    size: int
    tokens: int
    share: float | None


class RunPicture(TypedDict):
    """A whole run. Open for fields that later versions add."""

    version: int
    run: str
    name: str
    engine: str
    seq: int
    state: str
    reason: str
    headline: str
    over: bool
    stages: int
    replicas: int
    steps: int
    round: int | None
    rounds_done: int
    epoch_rounds: int
    elapsed_s: float | None
    speed: float | None
    round_s: float | None
    remaining_s: float | None
    unigram_nats: float | None
    writes_text: bool
    model_parameters: int | None
    stage_parameters: list[int]
    loss: Curve
    validation: Curve
    tokens_per_s: Curve
    tokens: float | None
    wire: dict[str, Any]
    live_workers: int
    workers: list[WorkerPicture]
    participants: list[ParticipantPicture]
    epochs_closed: int
    epochs: list[EpochPicture]
    own_texts: list[OwnText]
    reroutes: int
    checkpoints: int
    marks: list[Mark]
    errors: list[dict[str, str]]


@with_config(EXACT)
class PictureReply(TypedDict):
    """The picture for those who poll; null when nothing is newer than `since`."""

    seq: int
    picture: RunPicture | None
    silent_s: float | None
    problem: str
