"""The shape of a run: the facts about it that decide which statements count and who is paid, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from pluralis_lab.contributions.attestation import bytes32
from pluralis_lab.contributions.keys import checksum_address
from pluralis_lab.contributions.policies import POLICIES, Policy
from pluralis_lab.errors import EvidenceError


@dataclass(frozen=True)
class WorkerSeat:
    """Where a worker stands: replica `replica` of stage `stage`, owned by `participant`."""

    name: str
    stage: int
    replica: int
    participant: str


class SpecLike(Protocol):
    """What is taken from a `RunSpec`."""

    @property
    def stages(self) -> int: ...
    @property
    def replicas(self) -> int: ...
    @property
    def epoch_rounds(self) -> int: ...
    @property
    def num_micro_batches(self) -> int: ...
    @property
    def tokens_per_micro_batch(self) -> int: ...
    @property
    def emission(self) -> int: ...


@dataclass(frozen=True)
class RunShape:
    """All that a tally, a close or an audit must know about a run besides its statements.

    run_id : 64 hexadecimal digits
    stages, replicas : the grid of workers
    rounds_per_epoch : rounds of one accounting epoch
    num_micro_batches : indices of one round, over all head replicas
    tokens_per_micro_batch : tokens each of them counts
    stage_flops : forward FLOPs a token of each stage, integers
    workers : every seat; participants : account address by name
    chain_id, ledger : what signatures are bound to (0 and the zero address for a run without a chain)
    emission : whole tokens of epoch 0
    attesters : account address by name, of those whose quorum closes an epoch
    policy : a name in `policies.POLICIES`
    Raises EvidenceError where these contradict each other.
    """

    run_id: str
    stages: int
    replicas: int
    rounds_per_epoch: int
    num_micro_batches: int
    tokens_per_micro_batch: int
    stage_flops: tuple[int, ...]
    workers: tuple[WorkerSeat, ...]
    participants: Mapping[str, str]
    chain_id: int
    ledger: str
    emission: int
    attesters: Mapping[str, str] = field(default_factory=dict)
    policy: str = "work"

    def __post_init__(self) -> None:
        object.__setattr__(self, "run_id", bytes32(self.run_id, "run_id")[2:])
        object.__setattr__(self, "ledger", checksum_address(self.ledger))
        object.__setattr__(self, "stage_flops", tuple(self.stage_flops))
        object.__setattr__(self, "workers", tuple(self.workers))
        for name in ("participants", "attesters"):
            accounts = {who: checksum_address(address) for who, address in getattr(self, name).items()}
            object.__setattr__(self, name, accounts)
        for name in ("stages", "replicas", "rounds_per_epoch", "num_micro_batches", "tokens_per_micro_batch"):
            if getattr(self, name) < 1:
                raise EvidenceError(f"{name}={getattr(self, name)}; a run has at least one")
        if len(self.stage_flops) != self.stages or min(self.stage_flops) < 0:
            raise EvidenceError(f"stage_flops={self.stage_flops}; give one count for each of the {self.stages} stages")
        if self.policy not in POLICIES:
            raise EvidenceError(f"policy={self.policy!r} is unknown; use one of {', '.join(POLICIES)}")
        if len(self.seats) != len(self.workers):
            raise EvidenceError(f"workers={[seat.name for seat in self.workers]}; each name stands once")
        for seat in self.workers:
            if not 0 <= seat.stage < self.stages:
                raise EvidenceError(f"{seat.name} is at stage {seat.stage}, but the run has {self.stages} stages")
            if seat.participant not in self.participants:
                raise EvidenceError(f"{seat.name} belongs to {seat.participant!r}, who is no participant of the run")

    @classmethod
    def from_run(cls, info: Mapping[str, Any], spec: SpecLike, stage_flops: Sequence[int]) -> "RunShape":
        """Build the shape from run.json (`info`) and the spec. Raises EvidenceError for a run.json that lacks a field."""
        try:
            chain = info.get("chain") or {}
            return cls(
                run_id=info["id"],
                stages=spec.stages,
                replicas=spec.replicas,
                rounds_per_epoch=spec.epoch_rounds,
                num_micro_batches=spec.num_micro_batches,
                tokens_per_micro_batch=spec.tokens_per_micro_batch,
                stage_flops=tuple(stage_flops),
                workers=tuple(
                    WorkerSeat(seat["name"], seat["stage"], seat["replica"], seat["participant"]) for seat in info["workers"]
                ),
                participants={account["name"]: account["address"] for account in info["participants"]},
                chain_id=chain.get("chain_id") or 0,
                ledger=chain.get("ledger") or "0x" + "00" * 20,
                emission=spec.emission,
                attesters={account["name"]: account["address"] for account in info["attesters"]},
                policy=getattr(getattr(spec, "policy", None), "kind", "work"),
            )
        except (KeyError, TypeError) as error:
            raise EvidenceError(f"run.json lacks or mistypes a field: {error!r}") from error

    @cached_property
    def seats(self) -> Mapping[str, WorkerSeat]:
        """The seat of each worker, by name."""
        return {seat.name: seat for seat in self.workers}

    @cached_property
    def stage_workers(self) -> tuple[tuple[str, ...], ...]:
        """The names of the workers at each stage."""
        return tuple(tuple(seat.name for seat in self.workers if seat.stage == s) for s in range(self.stages))

    @property
    def quorum(self) -> int:
        """Signatures that close an epoch: floor(2n/3) + 1 of n attesters (contracts.md)."""
        return 2 * len(self.attesters) // 3 + 1

    @property
    def units(self) -> Policy:
        """The policy that turns work into units."""
        return POLICIES[self.policy]

    def rounds(self, epoch: int) -> range:
        """The rounds that belong to `epoch`."""
        return range(epoch * self.rounds_per_epoch, (epoch + 1) * self.rounds_per_epoch)
