"""A discrete-event simulation of a whole run: the same workers, real arithmetic, virtual links and clocks."""

import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pluralis_lab.churn import Churn
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus.batches import Corpus
from pluralis_lab.engines.meter import links_report, with_bytes
from pluralis_lab.engines.second_chances import SecondChances
from pluralis_lab.engines.task_queue import TaskQueue
from pluralis_lab.engines.virtual.agenda import Agenda
from pluralis_lab.engines.virtual.modelled import MODELLED_SIGNING, ModelledCompute
from pluralis_lab.engines.virtual.moments import Attachment, Departure, Freeze, Kill
from pluralis_lab.engines.virtual.network import Network
from pluralis_lab.engines.virtual.seat import Seat
from pluralis_lab.engines.virtual.shared_gradients import SharedGradients
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.links import Links
from pluralis_lab.models.cost import stage_parameters
from pluralis_lab.models.stage import torch_dtype
from pluralis_lab.spec import RunSpec
from pluralis_lab.worker import (
    Answer,
    Compute,
    Computed,
    Effect,
    Enrolled,
    Expel,
    Leave,
    Left,
    Peer,
    PeerLost,
    Probed,
    Prompted,
    Refused,
    Report,
    Send,
    SetAside,
    SetTimer,
    Started,
    Withdrawn,
    Woken,
    Worker,
    worker_name,
)
from pluralis_lab.worker.events import Event
from pluralis_lab.worker.signing import SIGNING

DEVICE_FLOPS = 20e9
"""Virtual arithmetic speed of a worker: about one core of the machines the figures in the README were taken on."""

OnReport = Callable[[str, float, str, dict[str, Any]], None]
Moment = Kill | Freeze | Attachment | Departure
Start = tuple[int, dict[str, tuple[bytes, str]]]
"""What a run goes on from: the rounds that are done, and by worker its state and its digest; 0 and none for the seed."""


class VirtualSwarm:
    """Runs `spec` to its last round in virtual time.

    Parameters
    ----------
    spec, corpus : what to train, and on what; without a corpus the arithmetic is modelled (`ModelledCompute`)
    vocab : token ids or classes, where there is no corpus that knows
    device_flops : floating-point operations a second of a worker of speed 1
    run_id : 64 hexadecimal characters
    links : what joins the workers: a wire for each pair, and an uplink for each worker if it names one
    keys : a hot key for each worker name
    on_report : called as (worker, virtual seconds, kind, body) for each `Report`, in order
    kills, freezes, attachments, departures : workers to kill, to stop for a while, to attach, and to ask to leave, by events
    speeds : of some workers, relative to `device_flops`
    churn : workers to kill, or to stop for a while, on the way, by virtual time
    detection_s : virtual seconds until the others know of a death
    on_answer : called as (worker, virtual seconds, answer) for what `ask` asked
    own : corpora that heads have of their own, by worker name
    start : what to go on from; None starts from the seed
    on_lost : called when somebody comes back to a stage whose weights nobody holds any more; returns what all who are there go
        on from. Without it nothing goes on then
    """

    def __init__(
        self,
        spec: RunSpec,
        corpus: Corpus | None,
        *,
        run_id: str,
        links: Links,
        keys: dict[str, HotKey],
        on_report: OnReport,
        kills: Sequence[Kill] = (),
        freezes: Sequence[Freeze] = (),
        attachments: Sequence[Attachment] = (),
        departures: Sequence[Departure] = (),
        vocab: int | None = None,
        device_flops: float = DEVICE_FLOPS,
        speeds: Mapping[str, float] | None = None,
        churn: Churn | None = None,
        detection_s: float = 0.2,
        own: Mapping[str, Corpus] | None = None,
        start: Start | None = None,
        on_lost: Callable[[], Start] | None = None,
        on_store: Callable[[str, int, bytes, str], None] | None = None,
        on_answer: Callable[[str, float, Answer], None] = lambda worker, at, answer: None,
    ) -> None:
        self.spec, self.corpus, self.run_id, self.keys = spec, corpus, run_id, keys
        self.on_report, self.on_store, self.on_answer, self.detection_s = on_report, on_store, on_answer, detection_s
        self._on_lost = on_lost
        moments: list[Moment] = [*freezes, *kills, *attachments, *departures]
        self._moments = deque(sorted(moments, key=lambda moment: moment.after_events))
        self._speeds, self._device_flops = speeds or {}, device_flops
        self._own = own or {}
        self.vocab = corpus.info().vocab if corpus is not None else vocab or 0
        self.num_events = 0
        self.agenda = Agenda()
        self._second_chances = SecondChances()
        version, states = start or (0, {})
        self._grid = {worker_name(number): divmod(number, spec.replicas) for number in range(spec.num_workers)}
        self._gradients: dict[int, SharedGradients] = {}
        self.seats = {name: self._seat(name, 0, version) for name in self._grid}
        self.network = Network(self.agenda, links, self.seats, self._tell, is_modelled=corpus is None)
        self._marks: dict[str, tasks.SyncMark | None] = {}
        self._gone: dict[str, int] = {}
        """The last incarnation of each worker that is gone: who begins is told, as others may still name it."""
        self._restore(version, states)
        for absence in churn.absences if churn is not None else ():
            if absence.frozen:
                self.agenda.put(absence.at_s, self._freeze, Freeze(absence.worker, 0, absence.for_s or 0.0))
            else:
                self.agenda.put(absence.at_s, self._kill, Kill(absence.worker, 0, absence.for_s))

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.agenda.now

    def run(self, *, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Process events until every worker serves, or `should_stop` says so. An error in a worker is raised as it is."""
        self._found()
        while not self.agenda.is_over and not should_stop():
            self.agenda.do_next()
            self.num_events += 1
            while self._moments and self._moments[0].after_events <= self.num_events:
                self._befall(self._moments.popleft())
        for name, seat in self.seats.items():
            if (body := links_report(seat.meter)) is not None:
                self.on_report(name, self.now, "links", body)

    def _restore(self, version: int, states: Mapping[str, tuple[bytes, str]]) -> None:
        """Load the weights of all who are there and have some in `states`."""
        for name, seat in self.seats.items():
            if name in states:
                restored = seat.compute.run(tasks.Restore(version, *states[name]))
                assert isinstance(restored, tasks.RestoreDone)
                self._marks[name] = restored.mark

    def _found(self) -> None:
        """Have all who are there begin, as those whom everybody knows."""
        everybody = [seat.machine.desk.me for seat in self.seats.values()]
        for name, seat in self.seats.items():
            peers = tuple(peer for peer in everybody if peer.name != name)
            self._at(0.0, name, seat.incarnation, Started(peers, founding=True, mark=self._marks.get(name)))

    def _go_back(self, start: Start) -> None:
        """Have all who are there go on from `start`; what is under way is of lives that are over, and reaches nobody."""
        version, states = start
        for name, seat in list(self.seats.items()):
            self.seats[name] = self._seat(name, seat.incarnation + 1, version)
            self.seats[name].frozen = seat.frozen
        self._marks.clear()
        self._restore(version, states)
        self._found()

    def ask(self, at_s: float, head: str, question: Prompted | Probed | Withdrawn) -> None:
        """Hand `question` to whoever sits at `head` at that virtual time; what comes back goes to `on_answer`."""

        def deliver() -> None:
            seat = self.seats.get(head)
            if seat is not None:
                self._tell(head, seat, question)

        self.agenda.put(at_s, deliver)

    def empty_stages(self) -> list[int]:
        """Return the stages whose weights nobody holds any more."""
        held = {seat.compute.index for seat in self.seats.values() if seat.machine.desk.state in ("active", "serving")}
        return [stage for stage in range(self.spec.stages) if stage not in held]

    def _seat(self, name: str, incarnation: int, since: int | None) -> Seat:
        stage, replica = self._grid[name]
        me = Peer(name, stage, replica, self.keys[name].address, incarnation, since)
        addresses = {worker: key.address for worker, key in self.keys.items()}
        signing = SIGNING if self.corpus is not None else MODELLED_SIGNING
        key, seats = self.keys[name], self._grid
        machine = Worker(self.spec, self.run_id, me, key, keys=addresses, vocab=self.vocab, seats=seats, signing=signing)
        compute = self._stage_compute(name, stage)
        queue = TaskQueue(forwards_last=self.spec.is_async)
        return Seat(machine, compute, queue, self._device_flops * self._speeds.get(name, 1.0), incarnation)

    def _stage_compute(self, name: str, stage: int) -> StageCompute | ModelledCompute:
        if self.corpus is None:
            return ModelledCompute(self.spec, stage, name, vocab=self.vocab)
        if stage not in self._gradients:
            format = FlatFormat(self.spec.sync.payload, torch_dtype(self.spec))
            self._gradients[stage] = SharedGradients(format, stage_parameters(self.spec, stage, self.vocab))
        own = self._own.get(name) if stage == 0 else None
        return StageCompute(self.spec, stage, self.corpus, own=own, gradients=self._gradients[stage])

    def _at(self, delay_s: float, name: str, incarnation: int, event: Event) -> None:
        """Hand `event` to that incarnation of `name`, if it is still there by then."""

        def deliver() -> None:
            seat = self.seats.get(name)
            if seat is not None and seat.incarnation == incarnation:
                self._tell(name, seat, event)

        self.agenda.put(self.now + delay_s, deliver)

    def _tell(self, name: str, seat: Seat, event: Event) -> None:
        """Hand `event` to a worker, or, while it is stopped, when it goes on."""
        if self.seats.get(name) is not seat:
            return
        if seat.is_frozen(self.now):
            self.agenda.put(seat.frozen[1], self._tell, name, seat, event)
        else:
            self._perform(name, seat, seat.machine.handle(event, self.now))

    def _perform(self, name: str, seat: Seat, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.network.send(name, seat, effect)
            elif isinstance(effect, Compute):
                seat.queue.put(effect.task)
            elif isinstance(effect, Report):
                body = effect.body
                if effect.kind == "work":
                    body = with_bytes(body, seat.meter, seat.compute_s)
                    seat.compute_s = 0.0
                elif effect.kind == "state":
                    body = {**body, "incarnation": seat.incarnation, "parameters": seat.compute.num_parameters}
                self.on_report(name, self.now, effect.kind, body)
            elif isinstance(effect, Answer):
                self.on_answer(name, self.now, effect)
            elif isinstance(effect, Expel):
                self._expel(name, seat, effect)
            elif isinstance(effect, SetAside):
                self._set_aside(name, effect)
            elif isinstance(effect, SetTimer):
                self._set_timer(name, seat, effect.after_s)
            elif isinstance(effect, Left):
                self._leave(name, seat)
                return
            elif self.on_store is not None:
                self.on_store(name, effect.version, effect.state, effect.digest)
        self._work(name, seat)

    def _work(self, name: str, seat: Seat) -> None:
        """Start the next task if the worker is idle; its arithmetic is done when its virtual time has passed."""
        if seat.is_busy or not seat.queue:
            return
        task = seat.queue.take()
        seat.is_busy = True
        seconds = seat.seconds(task)

        def finish() -> None:
            if self.seats.get(name) is not seat:
                return
            stopped_at, goes_on = seat.frozen
            if seat.is_frozen(self.now):
                self.agenda.put(goes_on + self.now - stopped_at, finish)  # what was left of it is still to be done
                return
            event: Event
            try:
                event = Computed(task, seat.compute.run(task), seconds)
            except WireError as error:
                event = Refused(task, str(error))
            seat.is_busy = False
            seat.compute_s += seconds
            self._tell(name, seat, event)

        self.agenda.put(self.now + seconds, finish)

    def _expel(self, name: str, seat: Seat, effect: Expel) -> None:
        """Cut a peer off that broke the protocol, as a supervisor would: its slot is started again."""
        self._at(0.0, name, seat.incarnation, PeerLost(effect.worker, effect.incarnation))
        there = self.seats.get(effect.worker)
        if there is not None and there.incarnation == effect.incarnation:
            self._kill(Kill(effect.worker, self.num_events, loses_wire=False), reason=f"expelled by {name}: {effect.reason}")

    def _set_timer(self, name: str, seat: Seat, after_s: float | None) -> None:
        """Wake a worker after so many seconds; what was set before is forgotten."""
        seat.timer += 1
        number = seat.timer

        def wake() -> None:
            if seat.timer == number and self.seats.get(name) is seat:
                if self.now < seat.frozen[1]:
                    self.agenda.put(seat.frozen[1], wake, is_watch=True)
                else:
                    self._tell(name, seat, Woken())

        if after_s is not None:
            self.agenda.put(self.now + after_s, wake, is_watch=True)

    def _befall(self, moment: Moment) -> None:
        if isinstance(moment, Freeze):
            self._freeze(moment)
        elif isinstance(moment, Kill):
            self._kill(moment)
        elif isinstance(moment, Attachment):
            self._attach(moment)
        else:
            self._ask_to_leave(moment.worker)

    def _freeze(self, freeze: Freeze) -> None:
        seat = self.seats.get(freeze.worker)
        if seat is not None and self.now >= seat.frozen[1]:
            seat.frozen = (self.now, self.now + freeze.for_s)
            self.agenda.put(seat.frozen[1], lambda: None)  # the run is not over before it goes on

    def _set_aside(self, name: str, effect: SetAside) -> None:
        """Give up a worker that `name` finds silent: its next incarnation begins when it goes on, and has waited its time."""
        there = self.seats.get(effect.worker)
        if there is None or there.incarnation != effect.incarnation or name not in self.seats:
            return
        waits_s = self._second_chances.wait_s(effect.worker, effect.silent_s, self.now)
        body = {"reason": f"{effect.reason} for {effect.silent_s:.3g} s", "by": name, "silent_s": effect.silent_s}
        back_s = max(there.frozen[1] - self.now, 0.0) + waits_s
        self._remove(Kill(effect.worker, self.num_events, max(back_s, self.detection_s), loses_wire=False), "aside", **body)

    def _kill(self, kill: Kill, *, reason: str = "killed") -> None:
        self._remove(kill, "dead", reason=reason)

    def _remove(self, kill: Kill, state: str, **facts: Any) -> None:
        """Take a worker's incarnation out of the run, and let the next one in when its time has come."""
        seat = self.seats.pop(kill.worker, None)
        if seat is None:
            return
        self._gone[kill.worker] = seat.incarnation
        if kill.loses_wire:
            self.network.lose_what_is_sent_by(kill.worker, seat.incarnation)
        self.on_report(kill.worker, self.now, "state", {"state": state, "incarnation": seat.incarnation, **facts})
        for other, other_seat in self.seats.items():
            self._at(self.detection_s, other, other_seat.incarnation, PeerLost(kill.worker, seat.incarnation))
        if kill.restart_s is not None:
            again, on_trial = seat.incarnation + 1, state == "aside"
            self.agenda.put(self.now + kill.restart_s, functools.partial(self._restart, kill.worker, again, on_trial=on_trial))

    def _ask_to_leave(self, name: str) -> None:
        seat = self.seats.get(name)
        if seat is not None:
            self._at(0.0, name, seat.incarnation, Leave())

    def _leave(self, name: str, seat: Seat) -> None:
        """End a worker in order: the others hear of it behind the last that it sent them."""
        del self.seats[name]
        self._gone[name] = seat.incarnation
        self.on_report(name, self.now, "state", {"state": "stopped", "incarnation": seat.incarnation, "reason": "left"})
        for other, other_seat in self.seats.items():
            gone_s = self.network.is_through_in(name, other)
            self._at(gone_s, other, other_seat.incarnation, PeerLost(name, seat.incarnation))

    def _attach(self, attachment: Attachment) -> None:
        name, stage = attachment.worker, attachment.stage
        self._grid[name] = (stage, max(replica for of, replica in self._grid.values() if of == stage) + 1)
        for seat in self.seats.values():
            seat.machine.handle(Enrolled(name, *self._grid[name], self.keys[name].address))
        self._restart(name, 0)

    def _restart(self, name: str, incarnation: int, *, on_trial: bool = False) -> None:
        self.seats[name] = self._seat(name, incarnation, None)
        present = {seat.compute.index for seat in self.seats.values()}
        if self._on_lost is not None and len(present) == self.spec.stages and self.empty_stages():
            self._go_back(self._on_lost())
            return
        peers = tuple(seat.machine.desk.me for other, seat in self.seats.items() if other != name)
        self._at(0.0, name, incarnation, Started(peers, founding=False, on_trial=on_trial))
        for gone, last in self._gone.items():
            self._at(0.0, name, incarnation, PeerLost(gone, last))
