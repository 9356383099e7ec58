"""The seats of a run's local workers: which process sits in each, how far it has come in, and what all of them must hear."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from pluralis_lab.engines.swarm.frames import json_frame
from pluralis_lab.engines.swarm.hosts import Hosts
from pluralis_lab.phases import HOLDING


@dataclass
class Seat:
    """A worker slot and the process in it.

    hosts : other people's machines, where it is on one of them; None: the process runs here
    line_token : what a process elsewhere opens its line with
    place : the network "namespace" of this machine that it runs in and its "host" address there, if it has been given one
    """

    name: str
    stage: int
    replica: int
    hosts: Hosts | None = None
    line_token: str = ""
    place: dict[str, str] = field(default_factory=dict)
    incarnation: int = 0
    first_incarnation: int = 0
    """Of the first process that this supervisor started here."""
    founding: bool = True
    pid: int | None = None
    writer: asyncio.StreamWriter | None = None
    addresses: list[str] = field(default_factory=list)
    is_up: bool = False
    is_told_to_go: bool = False
    is_leaving: bool = False
    has_said_bye: bool = False
    is_aside: bool = False
    is_given_up: bool = False
    """Whether no further process is started here: too many have failed in a row."""
    waits_s: float = 0.0
    """How long it stays away, once it has answered."""
    since: int | None = None
    state: str = "starting"
    deaths_in_a_row: int = 0
    last_words: str = ""

    @property
    def holds_state(self) -> bool:
        """Whether this worker has its stage's weights and takes part."""
        return self.pid is not None and self.state in HOLDING

    @property
    def is_remote(self) -> bool:
        """Whether the process runs on somebody else's machine."""
        return self.hosts is not None

    @property
    def waits_for_dht(self) -> bool:
        """Whether this worker can be reached, and has not been told yet through whom it enters the DHT."""
        return bool(self.addresses) and self.writer is not None and self.state == "starting" and not self.is_up

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. It may end at any moment, and those that it was connected to hear of that first."""
        if self.hosts is not None:
            return self.pid is not None and self.name in self.hosts
        try:
            return self.pid is not None and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def is_expected(self) -> bool:
        """Whether a worker is here or on its way: its process runs, or is about to be started.

        Not one that leaves, that has failed too often, that the others go on without, or whose machine is away: nobody knows
        when it comes.
        """
        is_away = self.hosts is not None and self.name not in self.hosts
        return not (self.is_leaving or self.is_aside or self.is_given_up or is_away)

    def clear(self, *, version: int) -> None:
        """Forget the process before, for a new one in a run that stands at `version`."""
        self.writer, self.is_up, self.is_told_to_go, self.addresses = None, False, False, []
        self.state, self.since, self.last_words = "starting", version if self.founding else None, ""
        self.is_aside, self.waits_s = False, 0.0

    def set_aside(self, waits_s: float) -> None:
        """Note that the others go on without the process here, and tell it so: it hears of that when it goes on."""
        self.is_aside, self.waits_s, self.state = True, waits_s, "aside"
        self.is_up = self.founding = self.is_told_to_go = False  # nobody waits for it, or for what it would say
        self.say(op="aside")

    def take_state(self, said: dict[str, Any]) -> None:
        """Note the state that the worker says it is in, and with the first that takes part, since which round."""
        self.state = said["state"]
        if self.state in HOLDING and self.since is None:
            self.since = said["round"]

    def say(self, **message: Any) -> None:
        """Send `message` to the worker, if it listens."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(json_frame(message))

    def kill(self) -> None:
        """Kill the process, if there is one still."""
        if self.hosts is not None:
            self.hosts.kill(self.name)
        elif self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Seats:
    """All seats of a run, by worker name.

    workers : as `run.json` lists them; who has left has no seat
    hosts : other people's machines
    before : the seats of the start before, where the same supervisor starts all workers anew; what sits here then is later
    first : the incarnations to begin with, by worker name, where a record of earlier ones is kept; 0 for others
    """

    def __init__(
        self,
        workers: list[dict[str, Any]],
        hosts: Hosts,
        before: "Seats | None" = None,
        first: Mapping[str, int] | None = None,
    ) -> None:
        self._hosts = hosts
        self._seats = {worker["name"]: self._seat(worker) for worker in workers if not worker.get("left")}
        for seat in self:
            seat.incarnation = seat.first_incarnation = (first or {}).get(seat.name, 0)
            if before is not None:
                seat.first_incarnation = before[seat.name].first_incarnation
                seat.incarnation = before[seat.name].incarnation + 1
                seat.deaths_in_a_row = before[seat.name].deaths_in_a_row
        self.have_begun = False
        """Whether the founders were all up, and have been told to begin."""
        self._attached: list[dict[str, Any]] = []
        self._lost: dict[str, int] = {}
        """The last incarnation of each worker that is gone, as the others were told."""

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    def __getitem__(self, name: str) -> Seat:
        return self._seats[name]

    def get(self, name: str) -> Seat | None:
        """Return the seat of `name`, None when no worker here is called so."""
        return self._seats.get(name)

    @property
    def names(self) -> list[str]:
        return list(self._seats)

    @property
    def are_trained(self) -> bool:
        """Whether every process that lives, and at least one, has nothing left to train."""
        live = [seat for seat in self if seat.pid is not None and not seat.is_aside]
        return bool(live) and all(seat.state == "serving" for seat in live)

    def add(self, worker: dict[str, Any]) -> None:
        """Add the seat of one more worker, as `run.json` lists it, and tell those who have begun."""
        self._attached.append(worker)
        for seat in self:
            if seat.is_told_to_go:
                seat.say(op="enrol", worker=worker)
        self._seats[worker["name"]] = self._seat(worker)
        self._seats[worker["name"]].founding = False

    def _seat(self, worker: dict[str, Any]) -> Seat:
        hosts = self._hosts if worker.get("remote") else None
        return Seat(worker["name"], worker["stage"], worker["replica"], hosts, place=worker.get("place", {}))

    def line_token(self, name: str) -> str | None:
        """Return what a worker elsewhere opens its line with, None for one that has no process there."""
        seat = self._seats.get(name)
        return seat.line_token or None if seat is not None else None

    def ask_to_leave(self, name: str) -> str | None:
        """Ask the worker `name` to leave for good; return why not."""
        seat = self._seats.get(name)
        if seat is None:
            return f"no worker {name!r}; there are {', '.join(self.names)}"
        if seat.pid is None or not seat.is_told_to_go:
            return f"{name} is not up yet; try again when it is"
        stay = [o for o in self if o.stage == seat.stage and o is not seat and o.holds_state and not o.is_leaving]
        if not stay:
            return f"{name} is the only one that has stage {seat.stage}; attach another there first, or run.stop() the run"
        if not seat.is_remote and all(other.is_remote for other in stay):  # whose checkpoints are on their machines
            return (
                f"{name} is the only one here that has stage {seat.stage}, of which no checkpoint would be left without it; "
                f"attach another on this machine first: run.attach(stage={seat.stage})"
            )
        seat.is_leaving = True
        seat.say(op="leave")
        return None

    def suspected(self, name: str, incarnation: int) -> Seat | None:
        """Return the seat of a live process that others cannot reach; who leaves closes its streams, who is aside takes none."""
        seat = self._seats.get(name)
        if seat is None or seat.incarnation != incarnation or seat.is_leaving or seat.is_aside or not seat.is_alive:
            return None
        return seat

    def accused(self, by: Seat, name: str, incarnation: int) -> Seat | None:
        """Return the seat of a replica that `by`, which takes part, may find silent; None for one that is gone or aside."""
        seat = self._seats.get(name)
        if seat is None or seat.incarnation != incarnation or seat.pid is None or seat.is_aside:
            return None
        return seat if seat.stage == by.stage and by.holds_state else None

    def vacate(self, seat: Seat) -> None:
        """Take away the seat of a worker that has left."""
        del self._seats[seat.name]

    def hold(self, stage: int) -> bool:
        """Say whether anybody has the weights of `stage`."""
        return any(seat.holds_state for seat in self if seat.stage == stage)

    def can_do_without(self, seat: Seat) -> bool:
        """Say whether others have the weights of this worker's stage, or are about to begin with them."""
        others = [other for other in self if other.stage == seat.stage and other is not seat and not other.is_leaving]
        return any(other.holds_state or (other.founding and not self.have_begun) for other in others)

    def lead_into_dht(self) -> None:
        """Bring workers into the DHT: the first alone, the others through those that are in it."""
        inside = [seat for seat in self if seat.is_up]
        waiting = [seat for seat in self if seat.waits_for_dht]
        if not inside:
            waiting = waiting[:1] if not any(seat.state == "bootstrapping" for seat in self) else []
        for seat in waiting:
            seat.state = "bootstrapping"
            seat.say(op="bootstrap", addresses=[address for other in inside for address in other.addresses])

    def let_go(self) -> bool:
        """Let workers begin, the founders when all of them are up, a later one at once; say whether the founders may."""
        if not all(seat.is_up for seat in self if seat.founding):
            return False
        self.have_begun = True
        up = [seat for seat in self if seat.is_up]
        known = {seat.name: {"incarnation": seat.incarnation, "since": seat.since} for seat in up}
        for seat in up:
            if not seat.is_told_to_go:
                seat.is_told_to_go = True
                seat.say(op="go", peers=known, attached=self._attached, lost=self._lost)
        return True

    def tell_lost(self, lost: Seat) -> None:
        """Tell the others, once, that this incarnation of a worker is gone; who begins later is told with its "go"."""
        if lost.incarnation > self._lost.get(lost.name, -1):
            self._lost[lost.name] = lost.incarnation
            for seat in self:
                if seat.name != lost.name:
                    seat.say(op="lost", worker=lost.name, incarnation=lost.incarnation)
