"""What workers say to each other, and its bytes: a msgpack header and raw arrays. Nothing is ever unpickled."""

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from typing import Any

import msgpack

from pluralis_lab.errors import WireError
from pluralis_lab.learning.payload import Payload

Item = dict[str, Any]
"""A signed work item as `contributions.receipts.sign_work` makes it."""


COMMITMENT_LAYOUT = (("h", "u1", (32,)),)
"""Of the hash that stands for a weight gradient where replicas train locally."""


@dataclass(frozen=True)
class Hello:
    """I am here. `since` is the first round I take work in, None while I join; `answer` asks for a Hello in return."""

    stage: int
    replica: int
    key: str
    incarnation: int
    since: int | None
    answer: bool


@dataclass(frozen=True)
class Activation:
    """A stage's output for micro-batch `index`. `own`: the head drew it from a corpus of its own."""

    round: int
    index: int
    item: Item
    payload: Payload
    own: bool = False


@dataclass(frozen=True)
class Drawn:
    """That micro-batch of yours is here already, made of these ids: somebody drew it before you. Make it of them."""

    round: int
    index: int
    payload: Payload


@dataclass(frozen=True)
class Gradient:
    """The loss's derivative by the activation of micro-batch `index`."""

    round: int
    index: int
    item: Item
    payload: Payload


@dataclass(frozen=True)
class Counted:
    """I have the weight gradients of exactly these `indices` of the round (to replicas of my stage)."""

    round: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Contribution:
    """`worker`'s summed weight gradient over the item's indices, and on the tail their summed `loss`; relayed by `Fetch`.

    `pace` is the level of the worker's seconds a micro-batch (`lanes`), None while it does not know.
    """

    round: int
    worker: str
    loss: float | None
    pace: int | None
    item: Item
    payload: Payload


@dataclass(frozen=True)
class Have:
    """I hold the contributions `parts` (worker, digest), which cover the round; I would admit `joiners`.

    Of each joiner: worker, incarnation, and whether it is on trial (`Join`).

    To replicas of my stage, who step when all say the same; and to the stage before, which until then keeps what it sent.
    """

    round: int
    parts: tuple[tuple[str, str], ...]
    joiners: tuple[tuple[str, int, bool], ...]


@dataclass(frozen=True)
class Fetch:
    """Send me `worker`'s contribution of the round, which I miss."""

    round: int
    worker: str


@dataclass(frozen=True)
class Committed:
    """My stage has made the step of `round` from `parts` and admitted `joiners`: what was kept for it may go.

    `lanes`, for the stage before: how micro-batches are dealt out here from the first round on that nobody has begun.
    """

    round: int
    parts: tuple[tuple[str, str], ...]
    joiners: tuple[tuple[str, int, bool], ...] = ()
    lanes: tuple[tuple[int, int, int | None], ...] = ()


@dataclass(frozen=True)
class Displacement:
    """How far `worker` came until after `round` since the exchange before, with a signed item for each round it counted in.

    `wish`: rounds that it would give the next exchange. Relayed by `FetchDisplacement`.
    """

    round: int
    worker: str
    wish: int
    items: tuple[tuple[int, Item], ...]
    payload: Payload


@dataclass(frozen=True)
class Gathered:
    """I hold the displacements `parts` (worker, digest) of the exchange after `round` (to replicas of my stage)."""

    round: int
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Merged:
    """The exchange after `round` is decided: it is made of `parts`."""

    round: int
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FetchDisplacement:
    """Send me `worker`'s displacement of the exchange after `round`, which I miss."""

    round: int
    worker: str


@dataclass(frozen=True)
class Join:
    """I hold no state: admit me to the stage and send me its state.

    `on_trial`: before this incarnation I was set aside, so deal me one micro-batch until I have answered.
    """

    incarnation: int
    on_trial: bool


@dataclass(frozen=True)
class State:
    """The stage's state after `version` rounds (a safetensors file in `state`), for an admitted joiner.

    `lanes` is how the stage deals micro-batches out, by the first round of each change (`lanes.Table`).
    """

    version: int
    digest: str
    lanes: tuple[tuple[int, tuple[tuple[int, int, int | None], ...]], ...]
    state: bytes


@dataclass(frozen=True)
class Lost:
    """This incarnation of `worker` is gone."""

    worker: str
    incarnation: int


@dataclass(frozen=True)
class Ping:
    """Are you there? (to replicas of my stage)"""

    number: int


@dataclass(frozen=True)
class Pong:
    """I am, as you asked in the Ping of that `number`: I have done so many tasks, and have so many more to do."""

    number: int
    done: int
    waiting: int


@dataclass(frozen=True)
class EvalActivation:
    """A stage's output for validation micro-batch `index` at `version` completed rounds; the tail answers `origin`."""

    version: int
    index: int
    origin: str
    payload: Payload


@dataclass(frozen=True)
class EvalDone:
    """The summed validation `loss` over `tokens` targets."""

    version: int
    index: int
    loss: float
    tokens: int


@dataclass(frozen=True)
class ProbeActivation:
    """A stage's output for held-out micro-batch `index`, for the loss that somebody asked `origin` for."""

    request: str
    index: int
    origin: str
    payload: Payload


@dataclass(frozen=True)
class ProbeDone:
    """The summed `loss` of that micro-batch over `tokens` targets."""

    request: str
    index: int
    loss: float
    tokens: int


@dataclass(frozen=True)
class InferActivation:
    """A stage's output for the positions after the first `start` of the text `request`, begun for the `attempt`-th time.

    The tail draws the token at `position` with `temperature` and `seed`, and tells `origin`.
    """

    request: str
    attempt: int
    origin: str
    start: int
    position: int
    temperature: float
    seed: int
    payload: Payload


@dataclass(frozen=True)
class Token:
    """The text goes on with `token` at `position`."""

    request: str
    attempt: int
    position: int
    token: int


@dataclass(frozen=True)
class Mislaid:
    """I have no cache of that attempt, or nobody to pass it on to: begin the text anew."""

    request: str
    attempt: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """That attempt at the text `request` is over: forget what its attention has seen, and tell the stage after yours."""

    request: str
    attempt: int


Message = (
    Hello
    | Activation
    | Drawn
    | Gradient
    | Counted
    | Contribution
    | Have
    | Fetch
    | Committed
    | Displacement
    | Gathered
    | Merged
    | FetchDisplacement
    | Join
    | State
    | Lost
    | Ping
    | Pong
    | EvalActivation
    | EvalDone
    | ProbeActivation
    | ProbeDone
    | InferActivation
    | Token
    | Mislaid
    | Ended
)
_TYPES: dict[str, type[Any]] = {cls.__name__: cls for cls in typing.get_args(Message)}
_TRAFFIC = {"Activation": "forward", "Gradient": "backward", "Contribution": "sync", "Displacement": "sync"}


def traffic_class(message: Message) -> str:
    """Return what the wire meter books `message` under: "forward", "backward", "sync" or "control"."""
    return _TRAFFIC.get(type(message).__name__, "control")


def encode(message: Message) -> bytes:
    """Return the message as bytes: length of the header (4, big-endian), header, raw data."""
    header: dict[str, Any] = {}
    raw = b""
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Payload):
            header[field.name], raw = value.layout, value.data
        elif isinstance(value, bytes):
            header[field.name], raw = None, value
        else:
            header[field.name] = value
    packed: bytes = msgpack.packb([type(message).__name__, header])
    return len(packed).to_bytes(4, "big") + packed + raw


def decode(data: bytes) -> Message:
    """Read what `encode` wrote. Raises WireError for anything else, naming what is wrong."""
    size = int.from_bytes(data[:4], "big")
    if size > len(data) - 4:
        raise WireError(f"a message of {len(data)} bytes announces a header of {size}; it was cut, or is none of ours")
    try:
        name, header = msgpack.unpackb(data[4 : 4 + size], use_list=False)
        cls = _TYPES[name]
        hints = _hints(name)
        if not isinstance(header, dict) or header.keys() != hints.keys():
            raise WireError(f"message {name} has the fields {str(list(header))[:200]}, expected {sorted(hints)}")
        raw = data[4 + size :]
        if raw and not any(hint is Payload or hint is bytes for hint in hints.values()):
            raise WireError(f"message {name} carries {len(raw)} bytes of data, but holds no arrays")
        fields = {field: _read(header[field], hint, raw, f"{name}.{field}") for field, hint in hints.items()}
        return typing.cast(Message, cls(**fields))
    except WireError:
        raise
    except Exception as error:
        raise WireError(
            f"{len(data)} bytes are no message ({type(error).__name__}: {str(error)[:200]}); does the peer run another version?"
        ) from error


@functools.cache
def _hints(name: str) -> dict[str, Any]:
    return typing.get_type_hints(_TYPES[name])


def _read(value: Any, hint: Any, raw: bytes, where: str) -> Any:
    """Check `value` against the field's type `hint` and return it; arrays come from `raw`."""
    if hint is Payload:
        if not _fits(value, tuple[tuple[str, str, tuple[int, ...]], ...]):
            raise WireError(f"{where} is {str(value)[:80]!r}, which is no layout of arrays")
        return Payload(value, raw)
    if hint is bytes:
        if value is not None:
            raise WireError(f"{where} is {str(value)[:80]!r} in the header; its bytes come after it")
        return raw
    if not _fits(value, hint):
        raise WireError(f"{where} is {str(value)[:80]!r}, which is no {hint}")
    return float(value) if hint is float else _plain(value)


def _plain(value: Any) -> Any:
    """Turn a signed item's tuples into lists, the form that is hashed; leave everything else."""
    if isinstance(value, dict):
        return {key: list(entry) if isinstance(entry, tuple) else entry for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(entry) for entry in value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(_fits(entry, args[0]) for entry in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if hint is type(None):
        return value is None
    if hint is int:
        return type(value) is int and -1 <= value < 2**63
    if hint is float:
        return isinstance(value, float) or type(value) is int
    return isinstance(value, hint)
