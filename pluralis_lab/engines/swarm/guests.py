"""The workers of a run that are on other people's machines: how one takes its seat, is started, heard and sent away."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.swarm.enrolment import Enrolment
from pluralis_lab.engines.swarm.gate import Gate, OnWorker
from pluralis_lab.engines.swarm.hosts import Hosts, OnExit, OnSpawned
from pluralis_lab.engines.swarm.seats import Seat, Seats
from pluralis_lab.errors import WireError
from pluralis_lab.store import RunDirectory


class Guests:
    """Lets workers in from elsewhere, and does for them what the supervisor does for its own.

    obey : executes a command that one who joins may give, and returns the answer
    on_worker : serves the line of a worker until it ends
    on_exit, on_spawned : as of `Hosts`
    start : called with a seat that may be filled now; it has the process started, unless the run is ending
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        obey: Callable[[dict[str, Any]], dict[str, Any]],
        on_worker: OnWorker,
        on_exit: OnExit,
        on_spawned: OnSpawned,
        start: Callable[[Seat], None],
    ) -> None:
        self._on_worker, self._start = on_worker, start
        self.hosts = Hosts(on_exit, on_spawned, self._let_leave)
        self.gate = Gate(run, obey=obey, on_worker=self._serve, on_seated=self._seat, line_token=self._line_token)
        self._seats: Seats
        self._enrolment: Enrolment
        self._recorder: Recorder

    def attend(self, seats: Seats, enrolment: Enrolment, recorder: Recorder) -> None:
        """Serve these seats from now on: all workers start, or start anew."""
        self._seats, self._enrolment, self._recorder = seats, enrolment, recorder

    def spawn(self, seat: Seat, facts: dict[str, Any]) -> None:
        """Have the process in `seat` started, by the machine that has joined with it; `facts` are what it has to know."""
        seat.line_token = secrets.token_hex(16)
        self.hosts.spawn(seat.name, self._recorder.info["workers"], token=seat.line_token, **facts)

    async def close(self, reason: str) -> None:
        """Tell everybody that the run has ended, and let nobody in any more."""
        self.hosts.close(reason)
        await self.gate.close()

    async def _seat(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Have the worker `name` start on the machine that has come for it, and listen to that until it is gone."""
        self.hosts.seat(name, writer)
        seat = self._seats.get(name)
        if seat is None:
            self.hosts.dismiss(name, "it has left the run")
        elif self._enrolment.knows(name) and seat.pid is None:
            seat.deaths_in_a_row = 0
            self._start(seat)
        await self.hosts.listen(name, reader, writer)

    def _let_leave(self, name: str) -> None:
        """Ask the guest `name` to leave, as whoever runs it wishes; where it cannot, its machine will just be gone."""
        if (why := self._seats.ask_to_leave(name)) is not None:
            self.hosts.dismiss(name, why)

    def _line_token(self, name: str) -> str | None:
        return self._seats.line_token(name)

    async def _serve(self, hello: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to a worker elsewhere as to one here, but do without it when it says what none of ours would."""
        try:
            await self._on_worker(hello, reader, writer)
        except WireError as error:
            name = str(hello["worker"])
            self._recorder.error(f"{name} is sent away, it said what no worker says: {error}", worker=name)
            self.hosts.dismiss(name, "it does not speak as this run's workers do; install the same version of pluralis-lab")
            self.hosts.drop(name)
