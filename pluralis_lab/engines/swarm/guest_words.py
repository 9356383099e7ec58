"""What the supervisor lets a worker on somebody else's machine say: the shape of each word, before anything is recorded.

A worker of this machine runs this package; one from elsewhere may run anything. What it claims of its own work is settled by
receipts, whoever reports it; here it is only kept from breaking the record.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pluralis_lab.contributions.receipts import Statement
from pluralis_lab.errors import EvidenceError, WireError
from pluralis_lab.spec import RunSpec

Count = Annotated[int, Field(ge=0, lt=2**53)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^worker-\d{1,5}$")]
Text = Annotated[str, Field(max_length=4000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAX_NAMED = 4096
Links = Annotated[dict[Name, dict[Annotated[str, Field(pattern=r"^[a-z_]{1,20}$")], Count]], Field(max_length=MAX_NAMED)]
"""By peer, what was sent to it, by kind."""


class _Word(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Address(_Word):
    op: Literal["address"]
    addresses: list[Annotated[str, Field(max_length=200)]] = Field(min_length=1, max_length=16)


class _Up(_Word):
    op: Literal["up"]
    device: Text
    parameters: Count


class _Answer(_Word):
    op: Literal["answer"]
    request: Text
    token: Count | None
    loss: float | None
    tokens: Count
    error: Text
    is_last: bool


class _Enrolled(_Word):
    op: Literal["enrolled"]
    worker: Name


class _Suspect(_Word):
    op: Literal["suspect"]
    worker: Name
    incarnation: Count


class _Silent(_Word):
    op: Literal["silent"]
    worker: Name
    incarnation: Count
    silent_s: Size
    reason: Text


class _Said(_Word):
    op: Literal["error", "failed"]
    message: Text


class _Nothing(_Word):
    op: Literal["left", "awake"]


class _Report(_Word):
    op: Literal["report"]
    kind: Literal[
        "state", "round", "work", "links", "exchange", "statements", "validation", "reroute", "stalled", "unmet", "checkpoint"
    ]
    time: Size
    body: dict[str, Any]


class _State(_Word):
    state: Literal["starting", "joining", "syncing", "warming", "active", "serving"]
    round: Count | None = None
    incarnation: Count
    parameters: Count
    device: Text
    pid: None = None
    received_bytes: Count | None = None
    size_bytes: Count | None = None


class _Loss(_Word):
    round: Count
    loss: float
    tokens: Count


class _Work(_Word):
    round: Count
    tokens: Count
    work_flops: Count
    grad_norm: Size | None
    agreement: float | None
    observed: dict[Name, list[float | None]] = Field(max_length=MAX_NAMED)
    state_digest: Digest | None
    links: Links
    settled: Count | None = None
    delay: float | None = None
    bytes_out: Count
    bytes_in: Count
    compute_s: Size


class _Links(_Word):
    links: Links
    bytes_out: Count
    bytes_in: Count


class _Exchange(_Word):
    round: Count
    late: Count
    waited: bool
    observed: dict[Name, list[float | None]] = Field(max_length=MAX_NAMED)


class _Reroute(_Word):
    round: Count
    index: Count
    stage: Count
    dead: Name
    to: Name


class _Stalled(_Word):
    stage: Count
    round: Count | None


class _Unmet(_Word):
    peer: Name
    waited_s: Size


class _Checkpoint(_Word):
    round: Count
    digest: Digest
    size_bytes: Count


class _Statements(_Word):
    round: Count
    statements: list[dict[str, Any]] = Field(max_length=MAX_NAMED)


_BODIES: dict[str, type[_Word]] = {
    "state": _State,
    "round": _Loss,
    "validation": _Loss,
    "work": _Work,
    "links": _Links,
    "exchange": _Exchange,
    "statements": _Statements,
    "reroute": _Reroute,
    "stalled": _Stalled,
    "unmet": _Unmet,
    "checkpoint": _Checkpoint,
}
_WORDS: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        _Address | _Up | _Answer | _Enrolled | _Suspect | _Silent | _Said | _Nothing | _Report,
        Field(discriminator="op"),
    ]
)


def check_word(message: dict[str, Any], *, worker: str, run_id: str, spec: RunSpec, vocab: int) -> None:
    """Raise WireError, naming the field, when `message` is nothing that `worker` can say to the supervisor of this run.

    vocab : token ids are below this
    """
    try:
        _WORDS.validate_python(message)
        if message["op"] == "answer" and (message["token"] or 0) >= vocab:
            raise WireError(f"token {message['token']} of an answer; the vocabulary has 0 to {vocab - 1}")
        if message["op"] != "report":
            return
        kind, body = message["kind"], message["body"]
        _BODIES[kind].model_validate(body)
        if (body.get("round") or 0) > spec.steps or body.get("stage", 0) not in range(spec.stages):
            raise WireError(f"a {kind} of round {body.get('round')}, stage {body.get('stage')}, which the run does not have")
        for line in body.get("statements", ()):
            statement = Statement.parse(line)
            if (statement.run, statement.signer, statement.epoch) != (run_id, worker, statement.round // spec.epoch_rounds):
                raise WireError("a statement that is of another run, worker or epoch")
            if statement.round >= spec.steps:
                raise WireError(f"a statement of round {statement.round}, which the run does not have")
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise WireError(f"{'.'.join(str(part) for part in fault['loc']) or 'a message'}: {fault['msg'].lower()}") from None
    except EvidenceError as error:
        raise WireError(str(error)) from None
