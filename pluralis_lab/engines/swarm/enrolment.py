"""Workers that the spec does not name: how one is taken into a run that is under way.

Whoever attaches one is first told its seat (`reserve`), has the participant's account authorise its key for that seat, and comes
back with that (`enrol`). Every worker is told of it, and has said so, before its process starts: nobody meets a stranger.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

from pluralis_lab.contributions.authorisations import Authorisation
from pluralis_lab.engines.own_corpus import SHOWN
from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.swarm.seats import Seat, Seats
from pluralis_lab.errors import EvidenceError
from pluralis_lab.parts import most_replicas
from pluralis_lab.spec import worker_name

Answer = dict[str, Any]


class Enrolment:
    """Gives out seats in a live run, and starts a worker in one when everybody knows it.

    recorder : writes the new worker down
    spawn : starts a process in a seat
    """

    def __init__(self, recorder: Recorder, seats: Seats, spawn: Callable[[Seat], None]) -> None:
        self._recorder, self._seats, self._spawn = recorder, seats, spawn
        self._spec = recorder.spec
        self._reserved: dict[str, tuple[int, int]] = {}
        self._untold: dict[str, set[str]] = {}

    def reserve(self, stage: object, among: object = None) -> Answer:
        """Return a new worker's name, stage and replica, and the devices that this stage's workers are on.

        stage : where it is to work; None: of those that have room the one with the fewest workers that are there or on their
            way, and of several the one with the most to compute
        among : the stages that it can work at; None: all
        """
        stages, most = range(self._spec.stages), most_replicas(self._spec.sync)
        possible = [of for of in stages if among is None or (isinstance(among, list) and of in among)]
        if not possible or (stage is not None and stage in stages and stage not in possible):
            return {"ok": False, "error": f"it can work at no stage where one is wanted ({among!r:.60})"}
        if stage is None:
            with_room = [of for of in possible if self._num_named(of) < most]
            if not with_room:
                return {"ok": False, "error": f"where it can work, each stage has {most} workers already"}
            stage = min(with_room, key=lambda of: (self._num_expected(of), -self._recorder.shape.stage_flops[of]))
        if type(stage) is not int or stage not in stages:
            return {"ok": False, "error": f"stage={stage!r}; the run has the stages 0 to {self._spec.stages - 1}"}
        if (count := self._num_named(stage)) >= most:
            return {"ok": False, "error": f"stage {stage} has {count} workers already; choose another stage"}
        taken = [replica for of, replica in self._all() if of == stage]
        given = {row["name"] for row in self._recorder.info["workers"]} | self._reserved.keys()
        name = next(name for number in itertools.count(len(given)) if (name := worker_name(number)) not in given)
        self._reserved[name] = (stage, max(taken) + 1)
        there = [row for row in self._recorder.info["workers"] if row["stage"] == stage and not row.get("left")]
        devices = sorted({row.get("device", "cpu") for row in there})
        return {"ok": True, "worker": name, "stage": stage, "replica": self._reserved[name][1], "devices": devices}

    def release(self, worker: str) -> Answer:
        """Take back a seat that was reserved and is not wanted."""
        self._reserved.pop(worker, None)
        return {"ok": True}

    def knows(self, worker: str) -> bool:
        """Say whether everybody has heard of `worker`, so that its process may start."""
        return worker not in self._untold

    def _all(self) -> list[tuple[int, int]]:
        """Return (stage, replica) of every worker that the run has or had: a name is given once."""
        return [*((row["stage"], row["replica"]) for row in self._recorder.info["workers"]), *self._reserved.values()]

    def _num_named(self, stage: int) -> int:
        """Return how many workers of `stage` have a name and have not left: those that are away may come back."""
        left = sum(1 for row in self._recorder.info["workers"] if row["stage"] == stage and row.get("left"))
        return sum(of == stage for of, _ in self._all()) - left

    def _num_expected(self, stage: int) -> int:
        """Return how many work at `stage` or are on their way there, those who have only asked for a seat among them."""
        reserved = sum(of == stage for of, _ in self._reserved.values())
        return reserved + sum(seat.is_expected for seat in self._seats if seat.stage == stage)

    def enrol(self, request: dict[str, Any]) -> Answer:
        """Take in the worker of a reserved seat.

        request : "authorisation", a line as in the evidence, "device", "data" if it brings some, "remote" where its process
            runs on another machine, and "only", the one worker that may come with this request
        """
        try:
            authorisation = Authorisation.parse(request.get("authorisation"))
            if authorisation.worker not in self._reserved or request.get("only", authorisation.worker) != authorisation.worker:
                raise EvidenceError(f"no seat is reserved for {authorisation.worker!r}; ask for one first")
            stage, replica = self._reserved[authorisation.worker]
            row: dict[str, Any] = {
                "name": authorisation.worker,
                "stage": stage,
                "replica": replica,
                "participant": authorisation.participant,
                "key": authorisation.key,
                "device": str(request.get("device", "cpu"))[:20],
                **({"remote": True} if request.get("remote") else {}),
            }
            self._check_name(authorisation)
            if request.get("data") is not None:
                row["data"] = self._own_data(request["data"], stage)
            self._recorder.enrol(row, authorisation)
        except EvidenceError as error:
            return {"ok": False, "error": str(error)}
        del self._reserved[authorisation.worker]
        self._untold[row["name"]] = {seat.name for seat in self._seats if seat.is_told_to_go and seat.pid is not None}
        self._seats.add(row)
        self._spawn_known()
        return {"ok": True}

    def _own_data(self, facts: object, stage: int) -> dict[str, Any]:
        """Return what is told of the corpus that a new head brings. Raises EvidenceError when that cannot be."""
        if not self._spec.own_data or stage != 0:
            raise EvidenceError(f"data for stage {stage} of a run with own_data={self._spec.own_data}; nobody would draw from it")
        if not isinstance(facts, dict) or facts.keys() != set(SHOWN):
            raise EvidenceError(f"data={str(facts)[:100]}; it is told with {', '.join(SHOWN)}")
        name, digest, tokens = (facts[key] for key in SHOWN)
        if not isinstance(name, str) or not 0 < len(name) <= 80 or not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
            raise EvidenceError(f"data={str(facts)[:100]}; name is a short text, hash 64 hexadecimal digits")
        if type(tokens) is not int or not 0 < tokens < 2**53:
            raise EvidenceError(f"data.train_tokens={tokens!r}; give how many tokens it has")
        return dict(facts)

    def _check_name(self, authorisation: Authorisation) -> None:
        """Raise EvidenceError when the run knows the participant's name for another account."""
        known = self._recorder.shape.participants.get(authorisation.participant)
        if known is not None and known != authorisation.address:
            raise EvidenceError(
                f"the run knows another account as {authorisation.participant!r} ({known}); come as another: --account NAME"
            )

    def on_told(self, seat: Seat, worker: str) -> None:
        """Note that the worker in `seat` knows of `worker`."""
        self._untold.get(worker, set()).discard(seat.name)
        self._spawn_known()

    def on_gone(self, seat: Seat) -> None:
        """Note that the process in `seat` has ended: the next one there reads `run.json`."""
        for names in self._untold.values():
            names.discard(seat.name)
        self._spawn_known()

    def _spawn_known(self) -> None:
        """Start those of whom everybody knows."""
        for name in [name for name, untold in self._untold.items() if not untold]:
            del self._untold[name]
            self._spawn(self._seats[name])
