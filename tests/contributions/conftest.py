"""A run on paper: real keys, real signatures, no training; each test says what happens in it."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from pluralis_lab.contributions.attestation import authorisation_typed_data, sign_typed_with_key
from pluralis_lab.contributions.audit import audit
from pluralis_lab.contributions.closing import Close, close_epoch
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.receipts import sign_receipt, sign_work
from pluralis_lab.contributions.report import AuditReport
from pluralis_lab.contributions.shape import RunShape, WorkerSeat
from pluralis_lab.contributions.tally import EpochTable, tally_epoch

Line = dict[str, Any]
LEDGER = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
CHAIN_ID = 131277322940537


def sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class PaperRun:
    """A grid of workers whose honest statements, closes and attestations are made on demand."""

    def __init__(
        self, stages: int, replicas: int, *, owners: int = 3, rounds_per_epoch: int = 2, micro_batches: int = 4, name: str = "run"
    ) -> None:
        names = [f"lab-{'abcdefgh'[i]}" for i in range(owners)]
        self.secrets = {who: bytes.fromhex(sha("account", who)) for who in names}
        self.keys = {f"worker-{i}": HotKey.from_seed(f"{name}/{i}".encode()) for i in range(stages * replicas)}
        accounts = {who: HotKey(secret).address for who, secret in self.secrets.items()}
        self.shape = RunShape(
            run_id=sha(name),
            stages=stages,
            replicas=replicas,
            rounds_per_epoch=rounds_per_epoch,
            num_micro_batches=micro_batches,
            tokens_per_micro_batch=32,
            stage_flops=tuple(1000 + 7 * stage for stage in range(stages)),
            workers=tuple(
                WorkerSeat(f"worker-{i}", i // replicas, i % replicas, names[i % owners]) for i in range(stages * replicas)
            ),
            participants=accounts,
            chain_id=CHAIN_ID,
            ledger=LEDGER,
            emission=1_000_000,
            attesters=accounts,
        )
        self.authorisations = [self.authorise(worker, key) for worker, key in self.keys.items()]
        self.digests = [sha("state", stage) for stage in range(stages)]

    def authorise(self, worker: str, key: HotKey) -> dict[str, str]:
        who = self.shape.seats[worker].participant
        typed = authorisation_typed_data(self.shape.run_id, worker, key.address, CHAIN_ID, LEDGER)
        return {
            "run": self.shape.run_id,
            "worker": worker,
            "participant": who,
            "address": self.shape.participants[who],
            "key": key.address,
            "signature": sign_typed_with_key(typed, self.secrets[who]),
        }

    def receipt(
        self, kind: str, round: int, worker: str, signer: str, indices: Iterable[int], *, salt: object = 0, **changes: Any
    ) -> Line:
        """One statement, one item an index (one item in all for a contribution); `changes` replace fields before signing."""
        shape = self.shape
        indices = sorted(indices)
        at = {"run": shape.run_id, "round": round, "kind": kind, "stage": shape.seats[worker].stage, "worker": worker}
        at |= {name: changes.pop(name) for name in list(changes) if name in at}
        tokens = changes.pop("tokens", shape.tokens_per_micro_batch)
        groups = [indices] if kind == "contribution" else [[index] for index in indices]
        key = changes.pop("worker_key", self.keys[worker])
        items = [
            sign_work(
                key, at["run"], at["round"], at["kind"], at["stage"], worker, group, tokens * len(group), sha(kind, group, salt)
            )
            for group in groups
        ]
        live = {"norm": 1.5, "agreement": 0.25} if kind == "contribution" else {}
        body = {"epoch": round // shape.rounds_per_epoch, "signer": signer, **at, "items": items, **live, **changes}
        return sign_receipt(body.pop("signer_key", self.keys[signer]), **body)

    def route(self, round: int, index: int) -> list[str]:
        """The worker at each stage, shifting with round and index so that every pair meets."""
        workers = self.shape.stage_workers
        return [row[(index + stage * (round + index // 2)) % len(row)] for stage, row in enumerate(workers)]

    def statements(
        self,
        epoch: int,
        *,
        route: Callable[[int, int], Sequence[str]] | None = None,
        dead: Callable[[int], set[str]] = lambda round: set(),
    ) -> list[Line]:
        """What honest workers sign. `dead(round)` die within the round: routed work is kept, their gradients are recomputed."""
        route = route or self.route
        lines = []
        for round in self.shape.rounds(epoch):
            sent: dict[tuple[str, str, str], set[int]] = defaultdict(set)
            done: dict[str, set[int]] = defaultdict(set)
            gone = dead(round)
            for index in range(self.shape.num_micro_batches):
                path = route(round, index)
                for a, b in itertools.pairwise(path):
                    sent["forward", a, b].add(index)
                    sent["backward", b, a].add(index)
                for stage, worker in enumerate(path):
                    alive = [name for name in self.shape.stage_workers[stage] if name not in gone]
                    done[worker if worker in alive else alive[0]].add(index)
            for worker, indices in done.items():
                for signer in self.shape.stage_workers[self.shape.seats[worker].stage]:
                    if signer != worker and signer not in gone:
                        sent["contribution", worker, signer] = indices
            lines += [self.receipt(kind, round, a, b, indices) for (kind, a, b), indices in sent.items()]
        return lines

    def tally(self, epoch: int, lines: Sequence[object]) -> EpochTable:
        return tally_epoch(self.shape, epoch, lines, self.authorisations)

    def close(self, epoch: int, lines: Sequence[object], attesters: Iterable[str] | None = None) -> Line:
        return self.attest(close_epoch(self.shape, epoch, lines, self.authorisations, self.digests), attesters)

    def attest(self, close: Line, attesters: Iterable[str] | None = None) -> Line:
        typed = Close.parse({**close, "attestations": []}).typed_data(self.shape)
        signed = [
            {
                "attester": who,
                "address": self.shape.attesters[who],
                "signature": sign_typed_with_key(typed, self.secrets[who]),
            }
            for who in (self.shape.attesters if attesters is None else attesters)
        ]
        return {**close, "attestations": signed}

    def evidence(self, epochs: int) -> tuple[list[Line], dict[int, list[Line]]]:
        lines = {epoch: self.statements(epoch) for epoch in range(epochs)}
        return [self.close(epoch, lines[epoch]) for epoch in range(epochs)], lines

    def audit(self, closes: Sequence[object], lines: dict[int, list[Any]], **options: Any) -> AuditReport:
        return audit(self.shape, closes, lines, self.authorisations, **options)


@pytest.fixture(scope="session")
def paper_run() -> Callable[..., PaperRun]:
    return PaperRun


@pytest.fixture(scope="session")
def grid(paper_run: Callable[..., PaperRun]) -> PaperRun:
    """3 stages x 2 replicas, three owners: the quickstart's grid, nothing in it changed by a test."""
    return paper_run(3, 2)
