"""A replica that sends what cannot be computed with, hashed and signed as it should be."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.receipts import sign_work
from pluralis_lab.engines.virtual import Kill, VirtualSwarm
from pluralis_lab.learning import tasks
from pluralis_lab.learning.payload import Payload, joined, pack
from pluralis_lab.learning.usable import largest_gradient
from pluralis_lab.worker import Send
from pluralis_lab.worker.messages import Contribution, Displacement, Message, Piece, Reduced
from tests.engines.conftest import RUN_ID

Run = Callable[[tasks.Task], tasks.Result]


def poisoned(payload: Payload, value: float) -> Payload:
    """Return `payload` with `value` as the last number of its first array."""
    (name, array), *others = payload.tensors().items()
    array.view(-1)[-1] = value
    return pack([(name, array), *others])


class Poisoner:
    """Has `liar` put `value` into what it sends its replicas in round `round_`, until it is expelled.

    Its gradient over gather; over butterfly a chunk of it, for which it has a finite sum ready, or with `sums` the sums that it
    adds up for others; where replicas train locally the first displacement from that round on.

    told : of whom it tells the lie, while others hear the truth; None: everybody, a chunk always
    dies_after : it is killed so many events after its first lie; None: it stays
    says_nothing : it does not lie, but keeps what it would have lied about
    """

    def __init__(
        self,
        liar: str,
        value: float,
        *,
        round_: int,
        told: frozenset[str] | None = None,
        sums: bool = False,
        dies_after: int | None = None,
        restart_s: float | None = 0.02,
        loses_wire: bool = False,
        says_nothing: bool = False,
    ) -> None:
        self.liar, self.value, self.round, self.told, self.sums = liar, value, round_, told, sums
        self.dies_after, self.restart_s, self.loses_wire, self.says_nothing = dies_after, restart_s, loses_wire, says_nothing
        self.lied_at: list[int] = []
        """Events by then, of each lie."""
        self._key = HotKey.from_seed(bytes([int(liar.removeprefix("worker-"))]))
        self._stage = 0
        self._chunks: set[str] = set()

    def __call__(self, swarm: VirtualSwarm) -> None:
        if swarm.num_events == 0:
            self._take_over(swarm)
        if self.lied_at and self.dies_after is not None and swarm.num_events == self.lied_at[0] + self.dies_after:
            swarm._kill(Kill(self.liar, 0, self.restart_s, self.loses_wire))

    def _take_over(self, swarm: VirtualSwarm) -> None:
        send, seat = swarm.network.send, swarm.seats[self.liar]
        self._stage = seat.compute.index
        if swarm.spec.is_butterfly and not self.sums:
            seat.compute.run = self._with_bad_chunks(seat.compute.run)  # type: ignore[method-assign]

        def speak(name: str, by: Any, effect: Send) -> None:
            if by is not seat or not (self.told is None or effect.target in self.told):
                send(name, by, effect)
            elif (forged := self._forge(effect.message)) is not None:
                self.lied_at.append(swarm.num_events)
                if not self.says_nothing:
                    send(name, by, Send(effect.target, forged))
            else:
                send(name, by, effect)

        swarm.network.send = speak  # type: ignore[method-assign]

    def _with_bad_chunks(self, run: Run) -> Run:
        """Return arithmetic whose contribution has two bad chunks, and that adds them up as if they were zero."""

        def lie(task: tasks.Task) -> tasks.Result:
            if isinstance(task, tasks.Reduce):
                return run(dataclasses.replace(task, pieces=tuple(map(self._without_poison, task.pieces))))
            done = run(task)
            if isinstance(task, tasks.Collect) and isinstance(done, tasks.CollectDone) and task.round == self.round:
                pieces = list(done.pieces)
                for chunk in {0, len(pieces) - 1}:
                    pieces[chunk] = poisoned(pieces[chunk], self.value)
                    self._chunks.add(pieces[chunk].digest)
                hashes = bytearray(b"".join(bytes.fromhex(piece.digest) for piece in pieces))
                table = pack([("h", torch.frombuffer(hashes, dtype=torch.uint8).view(-1, 32))])
                beside = list(done.gradient.tensors().items())[1:]
                return dataclasses.replace(done, gradient=joined(table, beside), pieces=tuple(pieces))
            return done

        return lie

    def _without_poison(self, piece: Payload) -> Payload:
        return poisoned(piece, 0.0) if piece.digest in self._chunks else piece

    def _forge(self, message: Message) -> Message | None:
        """Return the lie to tell in place of `message`; None where that is said as it is."""
        if isinstance(message, Piece) and message.payload.digest in self._chunks:
            return message  # poisoned already
        if isinstance(message, Reduced) and self.sums and message.round == self.round and message.by == self.liar:
            return dataclasses.replace(message, payload=poisoned(message.payload, self.value))
        is_own = isinstance(message, Contribution | Displacement) and message.worker == self.liar
        if isinstance(message, Contribution) and is_own and message.round == self.round and message.payload.layout[0][0] == "g":
            payload = poisoned(message.payload, self.value)
            return dataclasses.replace(message, payload=payload, item=self._sign(message.item, message.round, payload))
        if isinstance(message, Displacement) and is_own and message.round >= self.round:
            payload = poisoned(message.payload, self.value)
            items = tuple((number, self._sign(item, number, payload)) for number, item in message.items)
            return sealed(dataclasses.replace(message, items=items, payload=payload), self._key, self._stage)
        return None

    def _sign(self, item: dict[str, Any], round_: int, payload: Payload) -> dict[str, Any]:
        work = (round_, "contribution", self._stage, self.liar, item["indices"], item["tokens"])
        return sign_work(self._key, RUN_ID, *work, payload.digest)  # type: ignore[arg-type]


def sealed(message: Displacement, key: HotKey, stage: int) -> Displacement:
    """Return a displacement as its author would seal it."""
    seal = sign_work(key, RUN_ID, message.round, "local_step", stage, message.worker, [], 0, message.digest)
    return dataclasses.replace(message, seal=seal)


TOO_LARGE = 2 * largest_gradient(torch.float32)
"""A float32 that can be squared, and kept, but not if there were as many of it as may be added up."""
