"""What a run's gate says to those who join, checked by them: they run this on the word of somebody they may not know."""

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pluralis_lab.errors import RunError, WireError
from pluralis_lab.spec import RunSpec

_Name = Annotated[str, Field(pattern=r"^worker-\d{1,5}$")]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Text = Annotated[str, Field(max_length=400)]


class _Fact(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class Brought(_Fact):
    """What the run was told of a corpus that a worker brought along."""

    name: _Text
    hash: _Hash
    train_tokens: _Count


_F = TypeVar("_F", bound=_Fact)


class Row(_Fact):
    """A worker of the run."""

    name: _Name
    stage: _Count
    replica: _Count
    participant: _Text
    key: _Address
    device: _Text | None = None
    data: Brought | None = None


class Spawn(_Fact):
    """The order to start the worker's process; `workers` are all that the run has by now."""

    worker: _Name
    incarnation: _Count
    version: _Count
    on_trial: bool
    token: Annotated[str, Field(min_length=16, max_length=100)]
    workers: list[Row] = Field(min_length=1, max_length=100_000)

    @classmethod
    def read(cls, message: object) -> Self:
        """Check what the gate said. Raises WireError for what cannot be."""
        return _checked(cls, message)


class _Corpus(_Fact):
    name: _Text
    kind: _Text
    hash: _Hash
    vocab: Annotated[int, Field(ge=1, lt=2**31)]
    train_tokens: _Count
    validation_tokens: _Count
    unigram_nats: float | None


class _Chain(_Fact):
    kind: Literal["embedded", "url"]
    url: _Text | None
    profile: _Text
    chain_id: _Count
    ledger: _Address
    token: _Address


class _Participant(_Fact):
    name: _Text
    address: _Address


class Welcome(_Fact):
    """What the run is."""

    id: _Hash
    spec: Annotated[str, Field(max_length=1 << 20)]
    spec_hash: _Hash
    founder: _Address
    created: float
    corpus: _Corpus
    chain: _Chain
    stage_parameters: list[_Count] = Field(min_length=1, max_length=4096)
    model_parameters: _Count
    participants: list[_Participant] = Field(max_length=100_000)

    @classmethod
    def read(cls, facts: object, *, run_id: str) -> Self:
        """Check what the gate said. Raises WireError for what cannot be, RunError for a run of another version."""
        welcome = _checked(cls, facts)
        spec = welcome.parsed_spec()
        if welcome.id != run_id or spec.hash != welcome.spec_hash:
            raise RunError("the run describes itself in another way than this version reads it; install the run's pluralis-lab")
        if len(welcome.stage_parameters) != spec.stages:
            raise WireError("the run says stage_parameters wrong: one for each stage")
        return welcome

    def parsed_spec(self) -> RunSpec:
        """Return the run's spec; reading it runs no code of it."""
        return RunSpec.from_json(self.spec.encode())

    def info(self) -> dict[str, Any]:
        """Return the facts that a worker's run directory holds."""
        facts = self.model_dump(exclude={"spec"})
        return json.loads(json.dumps({**facts, "engine": "swarm", "state": "running", "reason": "", "workers": []}))  # type: ignore[no-any-return]


def _checked(cls: type[_F], said: object) -> _F:
    try:
        return cls.model_validate(said)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise WireError(f"the run says {'.'.join(map(str, fault['loc'])) or 'nothing'} wrong: {fault['msg']}") from None


def proof_text(run_id: str, worker: str, nonce: str) -> bytes:
    """Return what a worker that comes back signs with its hot key: of this run, this worker and this moment alone."""
    return f"pluralis-lab gate {run_id} {worker} {nonce}".encode()
