"""The worker: one state machine for every stage and engine. `handle(event, now) -> effects`, and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.errors import EvidenceError, RunError, WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.chunks import MAX_CHUNKS
from pluralis_lab.models.cost import stage_flops_per_token
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import messages as wire
from pluralis_lab.worker.checks import Checks
from pluralis_lab.worker.commit import Commit
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.effects import Effect
from pluralis_lab.worker.evaluation import Evaluation
from pluralis_lab.worker.events import (
    Computed,
    Enrolled,
    Event,
    Leave,
    PeerLost,
    Probed,
    Prompted,
    Received,
    Refused,
    Started,
    Woken,
)
from pluralis_lab.worker.exchange import Exchanges
from pluralis_lab.worker.flow import Flow
from pluralis_lab.worker.inference import Inference
from pluralis_lab.worker.leaving import Leaving
from pluralis_lab.worker.membership import Membership
from pluralis_lab.worker.probing import Probing
from pluralis_lab.worker.roster import Peer
from pluralis_lab.worker.round_state import RoundState
from pluralis_lab.worker.signing import SIGNING, Signing
from pluralis_lab.worker.watch import Watch


class Worker:
    """One stage replica's protocol.

    It never looks at a clock, draws a random number or touches a tensor: the same events give the same effects, so a run can
    be replayed from its event log, and the virtual engine proves what the swarm engine runs.

    Parameters
    ----------
    spec : the run's spec
    run_id : 64 hexadecimal characters
    me : this worker's slot; ``me.since`` is the round it starts at
    key : the hot key that signs its work; ``key.address == me.key``
    keys : the addresses of all workers' authorised hot keys, by name
    seats : (stage, replica) of all workers, by name; None: those that the spec founds the run with
    vocab : the corpus's vocabulary, for the stage's FLOPs and the size of its gradient
    signing : how work is signed and checked; another one than `SIGNING` only where nothing is computed

    A message that breaks the protocol changes nothing and ends in an `Expel` of its sender.

    Raises
    ------
    RunError : from `handle`, when the run itself cannot go on: the loss is not finite, or this worker's own arithmetic failed
    """

    def __init__(
        self,
        spec: RunSpec,
        run_id: str,
        me: Peer,
        key: HotKey,
        *,
        keys: Mapping[str, str],
        vocab: int,
        seats: Mapping[str, tuple[int, int]] | None = None,
        signing: Signing = SIGNING,
    ) -> None:
        self.desk = Desk(spec, run_id, me, key, keys=keys, seats=seats, round=me.since or 0, signing=signing)
        self.checks = Checks(self.desk, vocab=vocab)
        self.flops_per_token = stage_flops_per_token(spec, me.stage, vocab)
        self.exchanges = Exchanges(self.desk, self._on_step)
        on_applied = self.exchanges.on_local_step if self.desk.is_local else self._on_step
        self.commit = Commit(self.desk, on_applied, may_step=lambda state: self.evaluation.may_step(state))
        self.flow = Flow(self.desk, self.commit.on_counted_here)
        self.membership = Membership(self.desk, self.commit, self.exchanges, self.flow.deal_again)
        self.leaving = Leaving(self.desk, self.membership, self.exchanges)
        self.evaluation = Evaluation(self.desk, self._on_evaluated)
        self.inference, self.probing, self.watch = Inference(self.desk), Probing(self.desk), Watch(self.desk)
        self._future: list[tuple[str, wire.Message]] = []
        # Of one peer: it is at most a few rounds ahead.
        self._max_early = 64 + 16 * spec.num_micro_batches + (8 * MAX_CHUNKS if spec.is_butterfly else 0)
        self._on_message: dict[type, Callable[[str, Any], None]] = {
            wire.Activation: self.flow.on_activation,
            wire.Drawn: self.flow.own_data.on_drawn,
            wire.Gradient: self.flow.on_gradient,
            wire.Counted: self.commit.on_counted,
            wire.Contribution: self.commit.on_contribution,
            wire.Have: self.commit.on_have,
            wire.Fetch: self.commit.on_fetch,
            wire.Committed: self._on_committed,
            wire.Displacement: self.exchanges.on_displacement,
            wire.Gathered: self.exchanges.on_gathered,
            wire.Merged: self.exchanges.on_merged,
            wire.FetchDisplacement: self.exchanges.on_fetch,
            wire.EvalActivation: self.evaluation.on_activation,
            wire.EvalDone: lambda _, message: self.evaluation.on_done(message),
            wire.InferActivation: self.inference.on_activation,
            wire.Token: lambda _, message: self.inference.on_token(message),
            wire.Mislaid: lambda _, message: self.inference.on_mislaid(message),
            wire.Ended: lambda _, message: self.inference.on_ended(message),
            wire.ProbeActivation: self.probing.on_activation,
            wire.ProbeDone: lambda _, message: self.probing.on_done(message),
            wire.ProbeMislaid: lambda _, message: self.probing.on_mislaid(message),
            wire.Hello: self._on_hello,
            wire.Lost: lambda _, message: self._on_lost(message),
            wire.Ping: self.watch.on_ping,
            wire.Pong: self.watch.on_pong,
            wire.Join: self.membership.on_join,
            wire.StateOffer: self.membership.download.on_offer,
            wire.FetchState: self.membership.on_fetch_state,
            wire.StateChunk: self.membership.download.on_chunk,
        }
        self._on_result: dict[type, Callable[[Any, Any], None]] = {
            tasks.Forward: self.flow.on_forward_done,
            tasks.Backward: self.flow.on_backward_done,
            tasks.Collect: self.commit.on_collect_done,
            tasks.Inspect: self.commit.on_inspect_done,
            tasks.Apply: self.commit.on_apply_done,
            tasks.LocalStep: self.commit.on_apply_done,
            tasks.Displace: self.exchanges.on_displaced,
            tasks.Measure: self.exchanges.on_measured,
            tasks.Merge: self.exchanges.on_merge_done,
            tasks.Evaluate: self.evaluation.on_evaluated,
            tasks.Infer: self.inference.on_inferred,
            tasks.EndInference: lambda task, done: None,
            tasks.Probe: self.probing.on_probe_done,
            tasks.Snapshot: self.membership.on_snapshot_done,
            tasks.Restore: self._on_restored,
        }
        if (butterfly := self.commit.butterfly) is not None:
            self._on_result[tasks.Reduce] = butterfly.on_reduce_done
            self._on_message |= {
                wire.Piece: butterfly.on_piece,
                wire.FetchPiece: butterfly.on_fetch_piece,
                wire.Reduced: butterfly.on_reduced,
                wire.FetchReduced: butterfly.on_fetch_reduced,
            }

    def handle(self, event: Event, now: float = 0.0) -> list[Effect]:
        """Take one event and return what is to be done, in order.

        now : seconds on the engine's clock, which never goes back; only how long others are silent depends on it
        """
        self.desk.now = max(self.desk.now, now)
        if isinstance(event, Received):
            self._receive(event.source, event.message)
        elif isinstance(event, Computed):
            self.desk.num_done += 1
            self.desk.pace.take(event.task, event.seconds)
            self._on_result[type(event.task)](event.task, event.result)
        elif isinstance(event, Refused):
            self.desk.num_done += 1
            self._refuse(event.task, event.reason)
        elif isinstance(event, PeerLost):
            self._lose(event.worker, event.incarnation)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Prompted):
            self.inference.on_prompted(event)
        elif isinstance(event, Probed):
            self.probing.on_probed(event)
        elif isinstance(event, Enrolled):
            self.desk.enrol(event.worker, event.stage, event.replica, event.key)
        elif isinstance(event, Leave):
            self.desk.is_leaving = True
        elif isinstance(event, Woken):
            away_s = self.watch.on_woken()
            self.membership.set_stuck_aside()
            for peer in self.membership.forget_unmet(away_s=away_s):
                self._go_on_without(peer)
        else:
            self.inference.on_withdrawn(event.request)
            self.probing.on_withdrawn(event.request)
        if self.desk.is_leaving:
            self.leaving.leave_if_free()
        return self.desk.take_outbox()

    def _start(self, event: Started) -> None:
        desk = self.desk
        for peer in event.peers:
            desk.roster.add(peer)
        if event.founding:
            mates = [peer for peer in desk.roster.stage(desk.me.stage) if peer.since is not None]
            desk.roster.set_lanes(desk.me.stage, desk.round, tuple((peer.replica, 0, None) for peer in mates))
            desk.enter("active", round=desk.round)
            self.exchanges.restore(event.mark, is_own=True)
            self._begin_round()
            return
        desk.enter("joining", round=None)
        self.membership.on_trial = event.on_trial
        self.membership.say_hello(desk.roster.others(), since=None, answer=True)
        self.membership.ask_to_join()

    def _receive(self, source: str, message: wire.Message) -> None:
        peer = self.desk.roster.get(source)
        if peer is None and not isinstance(message, wire.Hello):
            return  # from one that is known to be gone, or that has not introduced itself
        if peer is not None and peer.stage == self.desk.me.stage:
            self.watch.on_heard(source)
        try:
            self.checks.check(source, message)
            is_early = self._is_early(message)
            if is_early and sum(sender == source for sender, _ in self._future) >= self._max_early:
                raise WireError(f"more than {self._max_early} messages of later rounds")
        except (WireError, EvidenceError) as error:
            incarnation = peer.incarnation if peer is not None else getattr(message, "incarnation", 0)
            self.desk.expel(source, incarnation, f"{type(message).__name__}: {error}")
            return
        self._take(source, message, is_early=is_early)

    def _take(self, source: str, message: wire.Message, *, is_early: bool) -> None:
        """Act on a message that was checked, or keep it until its round begins."""
        if is_early:
            self._future.append((source, message))
        elif isinstance(message, wire.Hello) or self.desk.roster.is_live(source):
            self._on_message[type(message)](source, message)

    def _refuse(self, task: tasks.Task, reason: str) -> None:
        """Undo what a peer's unusable bytes began. Raises RunError when the bytes are this worker's own."""
        if isinstance(task, tasks.Forward) and task.inputs is not None:
            self.flow.on_forward_refused(task, reason)
        elif isinstance(task, tasks.Forward) and task.drawn is not None:
            self.flow.on_drawn_refused(task, reason)
        elif isinstance(task, tasks.Backward):
            self.flow.on_backward_refused(task, reason)
        elif isinstance(task, tasks.Evaluate) and task.inputs is not None:
            self.evaluation.on_refused(task, reason)
        elif isinstance(task, tasks.Infer) and task.inputs is not None:
            self.inference.on_refused(task, reason)
        elif isinstance(task, tasks.Probe) and task.inputs is not None:
            self.probing.on_refused(task, reason)
        elif isinstance(task, tasks.Restore):
            self.membership.on_restore_refused(reason)
        else:
            raise RunError(reason)

    def _is_early(self, message: wire.Message) -> bool:
        """Whether the message is of a round that this worker has not reached, or it has no weights yet."""
        desk = self.desk
        if isinstance(message, wire.InferActivation | wire.ProbeActivation):
            return desk.state in ("starting", "joining", "syncing")
        round_ = message.version if isinstance(message, wire.EvalActivation) else getattr(message, "round", None)
        if round_ is None:
            return False
        if desk.state in ("starting", "joining", "syncing"):
            return True
        if isinstance(message, wire.EvalActivation) and desk.spec.is_async and round_ < desk.spec.steps:
            return False  # stages are never at the same step: each takes the weights that it has
        return round_ > desk.round + (desk.spec.window if isinstance(message, wire.Activation | wire.Gradient) else 0)

    def _begin_round(self) -> None:
        """Start the round that comes next, or serve when all are done."""
        desk = self.desk
        desk.current()
        self.watch.on_round()
        if desk.is_finished:
            desk.enter("serving", round=desk.round)
            self.membership.admit_waiting()
        if desk.is_head:
            self.evaluation.begin()
            if not desk.is_finished:
                self.flow.claim()
        early, self._future = self._future, []
        early.sort(key=lambda entry: not isinstance(entry[1], wire.Counted))  # so that nothing is counted that others have
        for source, message in early:
            self._take(source, message, is_early=self._is_early(message))
        if not desk.is_finished:
            self.commit.advance(desk.current())

    def _on_evaluated(self) -> None:
        if self.desk.spec.is_async:
            self.evaluation.begin()  # the next one may have become due meanwhile
        if not self.desk.is_finished:
            self.commit.advance(self.desk.current())

    def _on_step(self, state: RoundState, state_digest: str | None) -> None:
        """The new weights are there: tell the neighbours, record the round, let joiners in, go on."""
        desk, stage = self.desk, self.desk.me.stage
        assert state.applying is not None
        norms, agreements = (state.inspected[1].norms, state.inspected[1].agreements) if state.inspected else ({}, {})
        if desk.is_local and state.counted:
            norms = {desk.me.name: state.norm}
        tokens = desk.spec.tokens_per_micro_batch
        desk.report(
            "work",
            round=state.round,
            tokens=len(state.counted) * tokens,
            work_flops=3 * len(state.counted) * tokens * self.flops_per_token,
            grad_norm=norms.get(desk.me.name),
            agreement=agreements.get(desk.me.name),
            observed={name: [norm, agreements.get(name)] for name, norm in norms.items()},
            state_digest=state_digest,
            links=self._link_tokens(state),
            **({"settled": self.exchanges.settled} if desk.is_local else {}),
            **({"delay": state.delay} if desk.spec.is_async and state.counted else {}),
        )
        if desk.is_tail:
            targets = desk.spec.num_micro_batches * tokens
            losses = [state.contributions[part].loss for part in state.applying.parts]
            loss = sum(value for value in losses if value is not None) / targets
            desk.report("round", round=state.round, loss=loss, tokens=targets)
        desk.on_step()
        self.leaving.on_step(state)
        self.membership.admit_all(state.applying.joiners, state.round)
        self.membership.await_next(state)
        state.applying = replace(state.applying, lanes=self.membership.deal_anew(state, state.applying))
        self.membership.on_step(state.applying)
        for neighbour in (stage - 1, stage, stage + 1):
            desk.broadcast(desk.roster.stage(neighbour), state.applying)
        self.membership.hand_out_state()
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
            link = links.setdefault(state.senders[index][-1], {"forward_tokens": 0, "backward_tokens": 0})
            link["backward_tokens"] += tokens
        if self.desk.me.stage == 1:  # whoever gets them counts them, not whoever says to have brought them
            for index in state.own & state.counted:
                link = links.setdefault(state.senders[index][0], {"forward_tokens": 0, "backward_tokens": 0})
                link["own_tokens"] = link.get("own_tokens", 0) + tokens
        return links

    def _on_committed(self, source: str, message: wire.Committed) -> None:
        peer = self.desk.roster.get(source)
        if peer is not None:
            if peer.stage == self.desk.me.stage + 1:
                self.membership.on_next_committed(peer, message)
            self.commit.on_committed(peer, message)

    def _lose(self, name: str, incarnation: int) -> None:
        """Forget a dead worker, tell everybody once, and take up what it leaves."""
        desk = self.desk
        if name == desk.me.name:
            return
        if (lost := desk.roster.remove(name, incarnation)) is None:
            if desk.state == "active":
                self.commit.advance(desk.current())  # a replica may want to admit this one, who will never say hello here
            return
        self.membership.forget(name)
        desk.broadcast(desk.roster.others(), wire.Lost(name, incarnation))
        self._go_on_without(lost)

    def _go_on_without(self, lost: Peer) -> None:
        """Take up what a worker leaves that is no longer in the roster."""
        desk = self.desk
        self.watch.on_peer_lost(lost)
        if desk.state in ("joining", "syncing"):
            self.membership.on_holder_lost(lost)
            return
        if lost.stage == desk.me.stage:
            self.membership.on_replica_lost()
        elif lost.stage == desk.me.stage + 1:
            self.membership.on_next_lost()
        self.flow.on_peer_lost(lost)
        self.evaluation.on_peer_lost(lost)
        self.commit.on_peer_lost(lost)
        self.exchanges.on_peer_lost(lost)
        self.inference.on_peer_lost(lost)
        self.probing.on_peer_lost(lost)

    def _on_lost(self, message: wire.Lost) -> None:
        """Believe a peer that another one is gone, but only of incarnations that this worker has met.

        About others it is told by its engine; and one message must not keep a worker's later incarnations out.
        """
        known = self.desk.roster.get(message.worker)
        if known is not None and message.incarnation <= known.incarnation:
            self._lose(message.worker, message.incarnation)

    def _on_hello(self, source: str, message: wire.Hello) -> None:
        desk = self.desk
        known = desk.roster.get(source)
        if known is not None and known.incarnation < message.incarnation:
            self._lose(source, known.incarnation)
        peer = self.membership.on_hello(source, message)
        if peer is not None and desk.state in ("active", "serving"):
            self.probing.on_peer_found(peer)
        if peer is not None and desk.state == "active":
            self.watch.on_peer_found(peer)
            self.flow.on_peer_found(peer)
            self.evaluation.on_peer_found(peer)
            self.commit.on_peer_found(peer)
            self.exchanges.on_peer_found(peer)

    def _on_restored(self, task: tasks.Restore, done: tasks.RestoreDone) -> None:
        """The state is loaded: take part from this round on."""
        desk = self.desk
        desk.round = done.version
        desk.become_active(done.version)
        self.membership.enter_told()
        self.membership.say_hello(desk.roster.others(), since=done.version, answer=False)
        if not desk.is_finished:
            desk.take_part()
        self.exchanges.restore(done.mark, is_own=False)
        if self.commit.butterfly is not None:
            self.commit.butterfly.on_joined()
        self._begin_round()
