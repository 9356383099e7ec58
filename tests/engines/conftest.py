"""Small runs that both engines' tests use."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from pluralis_lab.churn import Churn
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.engines.virtual import Attachment, Departure, Freeze, Kill, VirtualSwarm
from pluralis_lab.learning import tasks
from pluralis_lab.links import Links
from pluralis_lab.parts import GPT, Dense, Subspace
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import Answer, Probed, Prompted, Withdrawn, worker_name
from tests.drawing import SEED_VARIABLE, choose_seed

torch.set_num_threads(1)
RUN_ID = "ab" * 32


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Half a megabyte of text with some order in it, so that a model has something to learn; context 16."""
    folder = tmp_path_factory.mktemp("corpus")
    words = ["def", "return", "import", "self", "class", "for", "in", "range", "None", "True", "(", ")", ":", "\n    "]
    rng = random.Random(0)
    file = folder / "text.txt"
    file.write_text(" ".join(rng.choice(words) for _ in range(120_000)))
    return open_corpus(f"path:{file}", context=16, home=folder)


def tiny_spec(corpus: Corpus, **changes: Any) -> RunSpec:
    """Return a spec of three stages that runs in a fraction of a second."""
    fields: dict[str, Any] = {
        "model": GPT(n_layer=3, n_head=2, d_model=16, context=16),
        "data": corpus.info().name,
        "stages": 3,
        "boundary": Subspace(4, "same"),
        "steps": 5,
        "batch_size": 4,
        "micro_batches": 2,
        "dtype": "float64",
        "eval_every": 2,
        "checkpoint_every": 4,
        "epoch_rounds": 2,
    }
    return RunSpec(**{**fields, **changes})


@dataclass
class Observed:
    """What came out of a virtual run."""

    losses: dict[int, float] = field(default_factory=dict)
    validations: dict[int, float] = field(default_factory=dict)
    gradients: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    statements: list[dict[str, Any]] = field(default_factory=list)
    reports: list[tuple[str, float, str, dict[str, Any]]] = field(default_factory=list)
    stored: dict[tuple[str, int], tuple[bytes, str]] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    answered_at: dict[str, list[int]] = field(default_factory=dict)
    """Of each answer, the events that the simulation had processed by then."""
    swarm: VirtualSwarm | None = None

    def text(self, request: str) -> list[int]:
        """Return the tokens that came for `request`, which must have ended well."""
        answers = self.answers[request]
        assert [answer.is_last for answer in answers] == [False] * (len(answers) - 1) + [True], answers
        assert not any(answer.error for answer in answers), answers
        return [answer.token for answer in answers if answer.token is not None]

    def of_kind(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        return [(worker, body) for worker, _, found, body in self.reports if found == kind]

    def expelled(self) -> dict[str, str]:
        """Return why each worker was expelled, which none may be that keeps to the rules."""
        reasons = [(worker, str(body.get("reason", ""))) for worker, body in self.of_kind("state")]
        return {worker: reason for worker, reason in reasons if reason.startswith("expelled")}

    def digests(self) -> dict[int, set[str]]:
        """Return the digests of the final weights of each stage's workers."""
        assert self.swarm is not None
        found: dict[int, set[str]] = {}
        for seat in self.swarm.seats.values():
            found.setdefault(seat.compute.index, set()).add(seat.compute.state_digest())
        return found


def run_virtual(
    spec: RunSpec,
    corpus: Corpus,
    *,
    kills: tuple[Kill, ...] = (),
    freezes: tuple[Freeze, ...] = (),
    attachments: tuple[Attachment, ...] = (),
    departures: tuple[Departure, ...] = (),
    links: Links | None = None,
    start: Any = None,
    asks: tuple[tuple[float, str, Prompted | Probed | Withdrawn], ...] = (),
    has_liars: bool = False,
    speeds: dict[str, float] | None = None,
    churn: Churn | None = None,
    own: dict[str, Corpus] | None = None,
    on_event: Callable[[VirtualSwarm], object] = lambda swarm: None,
    on_stored: Callable[[dict[tuple[str, int], tuple[bytes, str]]], object] = lambda stored: None,
) -> Observed:
    """Run `spec` in virtual time and return what it reported, with the aggregated gradient of each stage and round.

    asks : (virtual seconds, head, question) each
    has_liars : a tail may tell each of the others another loss, which nothing depends on
    on_event : called before each event
    on_stored : called with all checkpoints by (worker, version), whenever one is written
    """
    seen = Observed()

    def on_report(worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        seen.reports.append((worker, at, kind, body))
        if kind == "round":
            first = seen.losses.setdefault(body["round"], body["loss"])
            assert first == body["loss"] or has_liars, "tail replicas disagree on the loss"
        elif kind == "validation":
            seen.validations[body["round"]] = body["loss"]
        elif kind == "statements":
            seen.statements.extend(body["statements"])

    def on_store(worker: str, version: int, state: bytes, digest: str) -> None:
        seen.stored[worker, version] = (state, digest)
        on_stored(seen.stored)

    def on_answer(worker: str, at: float, answer: Answer) -> None:
        seen.answers.setdefault(answer.request, []).append(answer)
        seen.answered_at.setdefault(answer.request, []).append(swarm.num_events)

    keys = {worker_name(number): HotKey.from_seed(bytes([number])) for number in range(spec.num_workers + len(attachments))}
    swarm = VirtualSwarm(
        spec,
        corpus,
        run_id=RUN_ID,
        links=links or Links(),
        keys=keys,
        on_report=on_report,
        on_store=on_store,
        kills=kills,
        freezes=freezes,
        attachments=attachments,
        departures=departures,
        start=start,
        speeds=speeds,
        churn=churn,
        own=own,
        on_answer=on_answer,
    )
    for at_s, head, question in asks:
        swarm.ask(at_s, head, question)
    for seat in swarm.seats.values():
        seat.compute.run = _spy(seat.compute.index, seat.compute.run, seen)  # type: ignore[method-assign]
    swarm.run(should_stop=lambda: on_event(swarm) is not None)
    seen.swarm = swarm
    return seen


def _spy(stage: int, run: Callable[[tasks.Task], tasks.Result], seen: Observed) -> Callable[[tasks.Task], tasks.Result]:
    """Note the sum of the contributions that each step is made from."""

    def observe(task: tasks.Task) -> tasks.Result:
        if isinstance(task, tasks.Apply) and task.sums and "g" in task.sums[0].tensors():
            seen.gradients[stage, task.round] = torch.cat([total.tensors()["g"] for total in task.sums])
        elif isinstance(task, tasks.Apply) and "g" in task.parts[0].gradient.tensors():
            seen.gradients[stage, task.round] = torch.stack([part.gradient.tensors()["g"] for part in task.parts]).sum(dim=0)
        return run(task)

    return observe


def drawn_seed() -> int:
    """Return the session's seed, printed so that a failure says how it can be repeated."""
    seed = choose_seed()
    print(f"{SEED_VARIABLE}={seed}")
    return seed


BOUNDARIES = {"dense": Dense(), "subspace": Subspace(4, "same")}
TOLERANCE = {"dense": 1e-12, "subspace": 1e-10}
__all__ = ["BOUNDARIES", "RUN_ID", "TOLERANCE", "Kill", "Observed", "Path", "drawn_seed", "run_virtual", "tiny_spec"]
