"""The worker: one state machine for every stage and engine. `handle(event) -> effects`, and nothing else."""

from collections.abc import Callable
from typing import Any

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.learning import tasks
from pluralis_lab.models.cost import stage_flops_per_token
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import messages as wire
from pluralis_lab.worker.commit import Commit
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.effects import Effect
from pluralis_lab.worker.evaluation import Evaluation
from pluralis_lab.worker.events import Computed, Event, PeerLost, Received, Started
from pluralis_lab.worker.flow import Flow
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import RoundState


class Worker:
    """One stage replica's protocol under ``schedule="sync"``.

    It never looks at a clock, draws a random number or touches a tensor: the same events give the same effects, so a run can
    be replayed from its event log, and the virtual engine proves what the swarm engine runs.

    Parameters
    ----------
    spec : the run's spec
    run_id : 64 hexadecimal characters
    me : this worker's slot; ``me.since`` is the round it starts at
    key : the hot key that signs its work; ``key.address == me.key``
    vocab : the corpus's vocabulary, for the stage's FLOPs

    Raises
    ------
    WireError, EvidenceError : from `handle`, for a message that breaks the protocol; the worker's state is unchanged by it
    """

    def __init__(self, spec: RunSpec, run_id: str, me: Peer, key: HotKey, *, vocab: int) -> None:
        self.desk = Desk(spec, run_id, me, key, round=me.since or 0)
        self.flops_per_token = stage_flops_per_token(spec, me.stage, vocab)
        self.commit = Commit(self.desk, self._on_step, may_step=lambda: not self.evaluation.is_pending)
        self.flow = Flow(self.desk, self.commit.on_counted_here)
        self.evaluation = Evaluation(self.desk, self._on_evaluated)
        self._future: list[tuple[str, wire.Message]] = []
        self._snapshot_for: dict[int, list[Peer]] = {}
        self._on_message: dict[type, Callable[[str, Any], None]] = {
            wire.Activation: self.flow.on_activation,
            wire.Gradient: self.flow.on_gradient,
            wire.Counted: self.commit.on_counted,
            wire.Contribution: self.commit.on_contribution,
            wire.Have: self.commit.on_have,
            wire.Fetch: self.commit.on_fetch,
            wire.Committed: self._on_committed,
            wire.EvalActivation: lambda _, message: self.evaluation.on_activation(message),
            wire.EvalDone: lambda _, message: self.evaluation.on_done(message),
            wire.Hello: self._on_hello,
            wire.Lost: lambda _, message: self._lose(message.worker, message.incarnation),
            wire.Join: self._on_join,
            wire.State: self._on_state,
        }
        self._on_result: dict[type, Callable[[Any, Any], None]] = {
            tasks.Forward: self.flow.on_forward_done,
            tasks.Backward: self.flow.on_backward_done,
            tasks.Collect: self.commit.on_collect_done,
            tasks.Inspect: self.commit.on_inspect_done,
            tasks.Apply: self.commit.on_apply_done,
            tasks.Evaluate: self.evaluation.on_evaluated,
            tasks.Snapshot: self._on_snapshot,
            tasks.Restore: self._on_restored,
        }

    def handle(self, event: Event) -> list[Effect]:
        """Take one event and return what is to be done, in order."""
        if isinstance(event, Received):
            self._receive(event.source, event.message)
        elif isinstance(event, Computed):
            self._on_result[type(event.task)](event.task, event.result)
        elif isinstance(event, PeerLost):
            self._lose(event.worker, event.incarnation)
        else:
            self._start(event)
        return self.desk.take_outbox()

    def _start(self, event: Started) -> None:
        desk = self.desk
        for peer in event.peers:
            desk.roster.add(peer)
        if event.founding:
            desk.enter("active", round=desk.round)
            self._begin_round()
            return
        desk.enter("joining", round=None)
        self._say_hello(desk.roster.others(), since=None, answer=True)
        self._ask_to_join()

    def _receive(self, source: str, message: wire.Message) -> None:
        if not isinstance(message, wire.Hello) and not self.desk.roster.is_live(source):
            return  # from one that is known to be gone, or that has not introduced itself
        if self._is_early(message):
            self._future.append((source, message))
            return
        self._on_message[type(message)](source, message)

    def _is_early(self, message: wire.Message) -> bool:
        """Whether the message is of a round that this worker has not reached, or it has no weights yet."""
        round_ = message.version if isinstance(message, wire.EvalActivation) else getattr(message, "round", None)
        if round_ is None:
            return False
        return self.desk.state in ("starting", "joining", "syncing") or round_ > self.desk.round

    def _begin_round(self) -> None:
        """Start the round that comes next, or serve when all are done."""
        desk = self.desk
        desk.current()
        if desk.is_finished:
            desk.enter("serving", round=desk.round)
        if desk.is_head:
            self.evaluation.begin()
            if not desk.is_finished:
                self.flow.claim()
        early, self._future = self._future, []
        for source, message in early:
            self._receive(source, message)
        if not desk.is_finished:
            self.commit.advance(desk.current())

    def _on_evaluated(self) -> None:
        if not self.desk.is_finished:
            self.commit.advance(self.desk.current())

    def _on_step(self, state: RoundState, joiners: tuple[tuple[str, int], ...], state_digest: str | None) -> None:
        """The new weights are there: tell the neighbours, record the round, let joiners in, go on."""
        desk, stage = self.desk, self.desk.me.stage
        assert state.applying is not None
        assert state.inspected is not None
        measured = state.inspected[1]
        tokens = desk.spec.tokens_per_micro_batch
        desk.report(
            "work",
            round=state.round,
            tokens=len(state.counted) * tokens,
            work_flops=3 * len(state.counted) * tokens * self.flops_per_token,
            grad_norm=measured.norms.get(desk.me.name),
            agreement=measured.agreements.get(desk.me.name),
            observed={name: [measured.norms[name], measured.agreements[name]] for name, _ in state.applying},
            state_digest=state_digest,
            links=self._link_tokens(state),
        )
        if desk.is_tail:
            targets = desk.spec.num_micro_batches * tokens
            losses = [state.contributions[worker].loss for worker, _ in state.applying]
            loss = sum(value for value in losses if value is not None) / targets
            desk.report("round", round=state.round, loss=loss, tokens=targets)
        desk.round += 1
        admitted = [peer for name, incarnation in joiners if (peer := self._admit(name, incarnation)) is not None]
        for neighbour in (stage - 1, stage, stage + 1):
            desk.broadcast(desk.roster.stage(neighbour), wire.Committed(state.round, state.applying))
        members = [peer for peer in desk.roster.serving(stage, desk.round) if peer not in admitted]
        donates = admitted and members and members[0].name == desk.me.name
        keeps = desk.round % desk.spec.checkpoint_every == 0 or desk.is_finished
        if donates or keeps:
            self._snapshot_for[desk.round] = admitted if donates else []
            desk.compute(tasks.Snapshot(desk.round))
        desk.retire_rounds()
        self._begin_round()

    def _link_tokens(self, state: RoundState) -> dict[str, dict[str, int]]:
        """Count the tokens whose activations and gradients this worker sent to each neighbour."""
        links: dict[str, dict[str, int]] = {}
        tokens = self.desk.spec.tokens_per_micro_batch
        for index in state.sent_to:
            link = links.setdefault(state.sent_to[index], {"forward_tokens": 0, "backward_tokens": 0})
            link["forward_tokens"] += tokens
        for index in state.returned:
            link = links.setdefault(state.source[index], {"forward_tokens": 0, "backward_tokens": 0})
            link["backward_tokens"] += tokens
        return links

    def _on_committed(self, source: str, message: wire.Committed) -> None:
        peer = self.desk.roster.get(source)
        if peer is not None:
            self.commit.on_committed(peer, message)

    def _lose(self, name: str, incarnation: int) -> None:
        """Forget a dead worker, tell everybody once, and take up what it leaves."""
        desk = self.desk
        lost = desk.roster.remove(name, incarnation)
        if lost is None or name == desk.me.name:
            return
        desk.broadcast(desk.roster.others(), wire.Lost(name, incarnation))
        if desk.state in ("joining", "syncing"):
            if desk.state == "joining" and lost.stage == desk.me.stage:
                self._ask_to_join()
            return
        self.flow.on_peer_lost(lost)
        self.evaluation.on_peer_lost()
        self.commit.on_peer_lost(lost)

    def _on_hello(self, source: str, message: wire.Hello) -> None:
        desk = self.desk
        known = desk.roster.get(source)
        if known is not None and known.incarnation < message.incarnation:
            self._lose(source, known.incarnation)
            known = None
        peer = Peer(source, message.stage, message.replica, message.key, message.incarnation, message.since)
        if known is not None and known.since is not None and message.since is None:
            peer = known  # this stage has admitted it already; the Hello was sent before
        if not desk.roster.add(peer):
            return
        if message.answer:
            since = desk.me.since if desk.state in ("active", "serving") else None
            self._say_hello([peer], since=since, answer=False)
        if desk.state == "active":
            self.flow.on_peer_found(peer)
        if desk.state == "joining" and peer.stage == desk.me.stage:
            self._ask_to_join()

    def _say_hello(self, peers: list[Peer], *, since: int | None, answer: bool) -> None:
        me = self.desk.me
        self.desk.broadcast(peers, wire.Hello(me.stage, me.replica, me.key, me.incarnation, since, answer))

    def _ask_to_join(self) -> None:
        """Ask every replica that has the stage's state, so that all of them admit at the same step; the first one sends it."""
        desk = self.desk
        holders = [peer for peer in desk.roster.stage(desk.me.stage) if peer.since is not None]
        if not holders:
            desk.report("stalled", stage=desk.me.stage, round=None)
        desk.broadcast(holders, wire.Join(desk.me.incarnation))

    def _on_join(self, source: str, message: wire.Join) -> None:
        """Let a joiner in with the next step, or at once when there is none to come."""
        desk = self.desk
        peer = desk.roster.get(source)
        if peer is None or peer.incarnation != message.incarnation or peer.stage != desk.me.stage:
            return
        desk.roster.promote(source, None)  # it may have been admitted before, and lost who would have sent it the state
        if desk.state == "active":
            self.commit.waiting_joiners[source] = message.incarnation
            self.commit.advance(desk.current())
        elif desk.state == "serving":
            first = desk.roster.serving(desk.me.stage, desk.round)[0]
            self._admit(source, message.incarnation)
            if first.name == desk.me.name:
                self._snapshot_for.setdefault(desk.round, []).append(peer)
                desk.compute(tasks.Snapshot(desk.round))

    def _admit(self, name: str, incarnation: int) -> Peer | None:
        desk = self.desk
        self.commit.waiting_joiners.pop(name, None)
        peer = desk.roster.get(name)
        if peer is None or peer.incarnation != incarnation:
            return None
        desk.roster.promote(name, desk.round)
        return desk.roster.get(name)

    def _on_snapshot(self, task: tasks.Snapshot, done: tasks.SnapshotDone) -> None:
        desk = self.desk
        for peer in self._snapshot_for.pop(task.version, []):
            desk.send(peer.name, wire.State(done.version, done.digest, done.state))
        if done.version % desk.spec.checkpoint_every == 0 or done.version >= desk.spec.steps:
            desk.store(done.version, done.state, done.digest)

    def _on_state(self, source: str, message: wire.State) -> None:
        peer = self.desk.roster.get(source)
        if self.desk.state == "joining" and peer is not None and peer.stage == self.desk.me.stage:
            self.desk.enter("syncing", round=message.version)
            self.desk.compute(tasks.Restore(message.version, message.state, message.digest))

    def _on_restored(self, task: tasks.Restore, done: tasks.RestoreDone) -> None:
        """The state is loaded: take part from this round on."""
        desk = self.desk
        desk.round = done.version
        desk.become_active(done.version)
        self._say_hello(desk.roster.others(), since=done.version, answer=False)
        if not desk.is_finished:
            desk.enter("active", round=done.version)
        self._begin_round()
