"""What the parts of one worker share: who it is, where it stands, and the effects it has asked for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.contributions.receipts import ItemKind
from pluralis_lab.learning.payload import Payload
from pluralis_lab.learning.tasks import Task
from pluralis_lab.spec import RunSpec, worker_name
from pluralis_lab.worker.effects import Answer, Compute, Effect, Expel, Left, Report, Send, SetAside, SetTimer, Store
from pluralis_lab.worker.messages import Item, Message
from pluralis_lab.worker.pace import Pace
from pluralis_lab.worker.roster import Peer, Roster
from pluralis_lab.worker.round_state import RoundState
from pluralis_lab.worker.signing import SIGNING, Signing

LONGEST_REASON = 500
"""In characters; what is beyond, of a layout or of a peer's own words, is cut."""

State = Literal["starting", "joining", "syncing", "active", "serving"]


class Desk:
    """Identity, roster, rounds and outbox of a worker.

    Parameters
    ----------
    spec : the run's spec
    run_id : 64 hexadecimal characters, in every signature
    me : this worker's slot and key address
    key : the hot key that signs its work
    keys : the authorised hot keys' addresses by worker name
    seats : (stage, replica) by worker name; None: those of the spec
    round : number of completed rounds the weights stand at
    signing : how work is signed and checked
    """

    def __init__(
        self,
        spec: RunSpec,
        run_id: str,
        me: Peer,
        key: HotKey,
        *,
        keys: Mapping[str, str],
        seats: Mapping[str, tuple[int, int]] | None,
        round: int,
        signing: Signing = SIGNING,
    ) -> None:
        self.spec, self.run_id, self.me, self.key, self.round = spec, run_id, me, key, round
        self.keys, self.signing = dict(keys), signing
        self.seats = dict(seats or {worker_name(number): divmod(number, spec.replicas) for number in range(spec.num_workers)})
        self._slots: dict[int, frozenset[int]] = {}
        self.roster = Roster(me, replicas=spec.replicas, num_micro_batches=spec.num_micro_batches, keep=2 * spec.window + 5)
        self.pace = Pace()
        self.is_leaving = False
        self.now = 0.0
        """Seconds on the engine's clock, as of the event in hand; only differences mean something."""
        self.num_asked = self.num_done = 0
        """Tasks that this worker asked for, and those of them that are done."""
        self.rounds: dict[int, RoundState] = {}
        self.state: State = "starting"
        self._is_warming = False
        self._has_timer = False
        self._outbox: list[Effect] = []

    @property
    def is_head(self) -> bool:
        return self.me.stage == 0

    @property
    def is_tail(self) -> bool:
        return self.me.stage == self.spec.stages - 1

    @property
    def is_finished(self) -> bool:
        return self.round >= self.spec.steps

    def dealt_from(self, stage: int, step: int) -> int:
        """Return the first round that is dealt out in `stage` by what its replicas agreed on with step `step`.

        It must be one of which nobody has dealt anything before hearing of that step: two who deal by different lanes could give
        a micro-batch to two replicas. Heads deal to themselves, up to `RunSpec.window` rounds ahead of their own step. Whoever
        deals to a later stage may have made the step before that stage does; but not one more, before which everybody there has
        to tell of its own (`Commit`).
        """
        return min(step + self.spec.window + (1 if stage == 0 else 2), self.spec.steps)

    def current(self) -> RoundState:
        """Return the state of the round whose step comes next."""
        return self.of(self.round)

    def of(self, round_: int) -> RoundState:
        """Return the state of `round_`, which this stage may compute for; made when it is first asked for."""
        if (state := self.rounds.get(round_)) is None:
            state = self.rounds[round_] = RoundState(round_)
        return state

    def is_past(self, round_: int) -> bool:
        """Whether this stage's step of `round_` is made or being made: its sum of weight gradients is closed."""
        state = self.rounds.get(round_)
        return round_ < self.round or (state is not None and state.applying is not None)

    def is_over(self, round_: int) -> bool:
        """Whether no stage can be in `round_` any more: none is further behind the others than a head may claim ahead."""
        return round_ < self.round - self.spec.window - 1

    def of_past(self, round_: int) -> RoundState:
        """Return the state of a round whose step is made; one that was dropped is there again until the stage before is done."""
        if round_ not in self.rounds:
            mates = {peer.name for peer in self.mates(round_)}
            self.rounds[round_] = RoundState(round_, is_committed=True, next_committed=True, peers_committed=mates)
        return self.rounds[round_]

    def send(self, target: str, message: Message) -> None:
        """Queue `message`, unless `target` is known to be gone: then whoever replaces it is served by `PeerLost`."""
        if self.roster.is_live(target):
            self._outbox.append(Send(target, message))

    def broadcast(self, targets: list[Peer], message: Message) -> None:
        for peer in targets:
            if peer.name != self.me.name:
                self.send(peer.name, message)

    def compute(self, task: Task) -> None:
        self.num_asked += 1
        self._outbox.append(Compute(task))

    def store(self, version: int, state: bytes, digest: str) -> None:
        self._outbox.append(Store(version, state, digest))

    def leave(self) -> None:
        """Ask the engine to end this worker, of whom nobody needs anything any more."""
        self._outbox.append(Left())

    def expel(self, worker: str, incarnation: int, reason: str) -> None:
        """Have the engine give up a peer that broke the protocol. What quotes its message is cut: it goes into the record."""
        self._outbox.append(Expel(worker, incarnation, reason[:LONGEST_REASON]))

    def expel_live(self, worker: str, reason: str) -> None:
        """Expel the incarnation of `worker` that is in the roster, if it is."""
        peer = self.roster.get(worker)
        if peer is not None:
            self.expel(worker, peer.incarnation, reason)

    def set_aside(self, peer: Peer, silent_s: float, reason: str) -> None:
        """Have the engine set a replica aside that keeps the others waiting."""
        self._outbox.append(SetAside(peer.name, peer.incarnation, silent_s, reason))

    def set_timer(self, after_s: float | None) -> None:
        """Be woken after so many seconds, or with None not at all."""
        if after_s is not None or self._has_timer:
            self._has_timer = after_s is not None
            self._outbox.append(SetTimer(after_s))

    @property
    def has_mates(self) -> bool:
        """Whether this stage has other workers, such as join included."""
        return len(self.roster.stage(self.me.stage)) > 1

    def mates(self, round_: int) -> list[Peer]:
        """Return the other live replicas of this stage that take work of `round_`."""
        return [peer for peer in self.roster.serving(self.me.stage, round_) if peer.name != self.me.name]

    def report(self, kind: Any, **body: Any) -> None:
        self._outbox.append(Report(kind, body))

    def answer(self, request: str, **facts: Any) -> None:
        self._outbox.append(Answer(request, **facts))

    def enter(self, state: State, **facts: Any) -> None:
        """Change the worker's own state and report it."""
        self.state = state
        self.report("state", state=state, **facts)

    def take_part(self) -> None:
        """Work with the weights that were fetched; *warming* is told until the first step with the others, then *active*."""
        self.state, self._is_warming = "active", True
        self.report("state", state="warming", round=self.round)

    def on_step(self) -> None:
        """Note that this worker has made a step with the others, and stands at the next round."""
        self.round += 1
        if self._is_warming:
            self._is_warming = False
            self.report("state", state="active", round=self.round)

    def enrol(self, worker: str, stage: int, replica: int, key: str) -> None:
        """Note that the run has another worker, whom its participant has authorised."""
        self.seats[worker] = (stage, replica)
        self._slots.pop(stage, None)
        self.keys[worker] = key

    def slots(self, stage: int) -> frozenset[int]:
        """Return the slots of `stage`, live or not."""
        if stage not in self._slots:
            self._slots[stage] = frozenset(replica for of, replica in self.seats.values() if of == stage)
        return self._slots[stage]

    def become_active(self, since: int) -> None:
        """Note in the own roster that this worker takes work from round `since`."""
        self.roster.promote(self.me.name, since)
        self.me = replace(self.me, since=since)

    def take_outbox(self) -> list[Effect]:
        effects, self._outbox = self._outbox, []
        return effects

    def sign(self, kind: ItemKind, round_: int, indices: list[int], payload: Payload) -> Item:
        """Sign work that is about to be sent."""
        tokens = len(indices) * self.spec.tokens_per_micro_batch
        return self.signing.sign_work(
            self.key, self.run_id, round_, kind, self.me.stage, self.me.name, indices, tokens, payload.digest
        )

    @property
    def is_local(self) -> bool:
        """Whether replicas step on their own and exchange only now and then (`DiLoCo`, `SliceSync`)."""
        return self.spec.sync_every is not None

    def retire_rounds(self) -> None:
        """Drop rounds that neither this worker nor a neighbour can ask for again."""
        for number in [number for number, state in self.rounds.items() if number < self.round and self._is_settled(state)]:
            del self.rounds[number]

    def _is_settled(self, state: RoundState) -> bool:
        mates = {peer.name for peer in self.mates(state.round)}
        return (
            state.is_committed
            and (not self.spec.is_async or state.senders.keys() <= state.returned.keys())  # an earlier stage may wait for one
            and (self.is_head or state.previous_committed)
            and (self.is_tail or state.next_committed)
            and mates <= state.peers_committed
        ) or self.is_over(state.round)  # a joiner is not told of a step by who did not know it yet
