"""A message of every type that a worker accepts, as somebody could send it in a given run."""

import typing
from typing import Any

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.parts import Dense, DiLoCo, FullSync, SliceSync
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import Probed, Prompted, Send
from pluralis_lab.worker.messages import (
    Activation,
    Contribution,
    Displacement,
    Drawn,
    EvalActivation,
    EvalDone,
    Fetch,
    FetchDisplacement,
    FetchPiece,
    FetchReduced,
    Gathered,
    Have,
    Merged,
    Message,
    Mislaid,
    Piece,
    Ping,
    Pong,
    ProbeActivation,
    ProbeDone,
    ProbeMislaid,
    Reduced,
    Token,
)
from tests.engines.conftest import run_virtual

EVERY_TYPE: frozenset[type] = frozenset(typing.get_args(Message))
PROBE = "00000000000000b2"
QUESTIONS = (
    (0.0, "worker-0", Prompted("00000000000000a1", tuple(b"def "), 12, 1.0, 0)),
    (0.0, "worker-1", Probed(PROBE, 2)),
    (0.001, "worker-1", Prompted("00000000000000c3", tuple(b"def "), 30, 1.0, 0)),
)
WAYS_TO_TRAIN: dict[str, dict[str, Any]] = {
    "sync": {},
    "async": {"schedule": "async"},
    "slices": {"sync": SliceSync(fraction=0.4, every=2), "boundary": Dense()},
    "butterfly": {"sync": FullSync(transport="butterfly")},
    "async, butterfly": {"schedule": "async", "sync": FullSync(transport="butterfly"), "boundary": Dense()},
    "async, diloco": {"schedule": "async", "sync": DiLoCo(inner_steps=2), "boundary": Dense()},
    "own data": {"own_data": 0.5},
}


def messages_of(spec: RunSpec, text: Corpus) -> dict[type, list[Message]]:
    """Return what workers say to each other in an honest run in which one of them dies and comes back, by type."""
    said: dict[type, list[Message]] = {}

    def listen(swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            send = swarm.network.send

            def note(name: str, seat: Any, effect: Send) -> None:
                said.setdefault(type(effect.message), []).append(effect.message)
                send(name, seat, effect)

            swarm.network.send = note  # type: ignore[method-assign]

    run_virtual(spec, text, kills=(Kill("worker-3", 300, 0.02),), asks=QUESTIONS, on_event=listen)
    return said


def every_message(spec: RunSpec, text: Corpus) -> dict[type, list[Message]]:
    """Return what is said in such a run and, of the types that it has no occasion for, what could be said in it."""
    said = messages_of(spec, text)
    return {**unsaid(said), **said}


def unsaid(said: dict[type, list[Any]]) -> dict[type, list[Message]]:
    """Make messages of the types that need an occasion, or another way to train, of the rounds, workers and arrays of a run."""
    gradients: list[Contribution] = said[Contribution]
    steps: list[Have] = said[Have]
    exchanges: list[Displacement] = said.get(Displacement, [])
    return {
        Drawn: [Drawn(of.round, of.index, of.payload.only("ids")) for of in said[Activation]],
        Fetch: [Fetch(of.round, of.worker) for of in gradients],
        Piece: [Piece(of.round, of.payload.digest, 0, of.payload) for of in gradients],
        FetchPiece: [FetchPiece(of.round, of.payload.digest, 0) for of in gradients],
        Reduced: [Reduced(of.round, of.parts, 0, of.parts[0][0], gradients[0].payload) for of in steps],
        FetchReduced: [FetchReduced(of.round) for of in gradients],
        Displacement: [Displacement(of.round, of.worker, 1, ((of.round, of.item),), of.item, of.payload) for of in gradients],
        Gathered: [Gathered(of.round, of.parts) for of in steps],
        Merged: [Merged(of.round, of.parts) for of in steps],
        FetchDisplacement: [FetchDisplacement(of.round, of.worker) for of in exchanges or gradients],
        Ping: [Ping(number) for number in range(4)],
        Pong: [Pong(number, 10 * number, 2) for number in range(4)],
        ProbeActivation: [ProbeActivation(PROBE, of.index, of.origin, of.payload) for of in said[EvalActivation]],
        ProbeDone: [ProbeDone(PROBE, of.index, of.loss, of.tokens) for of in said[EvalDone]],
        ProbeMislaid: [ProbeMislaid(PROBE, of.index, "nobody is there") for of in said[EvalDone]],
        Mislaid: [Mislaid(of.request, of.attempt, "its cache was forgotten") for of in said[Token]],
    }
