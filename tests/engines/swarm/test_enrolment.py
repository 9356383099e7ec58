"""Where joiners are sent: to the stage with the fewest workers that are there or on their way, and never to a full one."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pluralis_lab as pl
from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.engines.swarm.enrolment import Enrolment
from pluralis_lab.engines.swarm.hosts import Hosts
from pluralis_lab.engines.swarm.seats import Seat, Seats
from pluralis_lab.store import RunDirectory
from tests.engines.swarm.conftest import small_spec

GPT = pl.GPT(n_layer=3, n_head=2, d_model=32, context=64)


@pytest.fixture(scope="module")
def directory(home: Path) -> RunDirectory:
    """The directory of a simulation of three stages with two workers each; anybody can sign for its accounts."""
    return pl.simulate(small_spec(model=GPT, stages=3, steps=1)).wait(timeout_s=60).stop()._directory


class Entrance:
    """A run's seats, and who is let into them; no process starts."""

    def __init__(self, directory: RunDirectory) -> None:
        self.hosts = Hosts(lambda name, pid, status: None, lambda name, pid: None, lambda name: None)
        self.started: list[Seat] = []
        self.recorder = Recorder(directory, sign_epoch=lambda name, typed: "", clock=time.time)
        self.seats = Seats(directory.info["workers"], self.hosts)
        self.enrolment = Enrolment(self.recorder, self.seats, self.started.append)

    def enrol(self, worker: str, **facts: object) -> None:
        """Take the seat that is reserved for `worker`, for the founder."""
        run, key = self.recorder.run, HotKey.generate()
        signer = signer_for(run.info["chain"], seed=0, home=run.path.parent.parent)
        chain, owner = run.info["chain"], run.info["account"]
        typed = authorisation_typed_data(run.id, worker, key.address, chain["chain_id"], chain["ledger"])
        names = {"run": run.id, "worker": worker, "participant": owner, "address": signer.address(owner), "key": key.address}
        answer = self.enrolment.enrol({"authorisation": {**names, "signature": signer.sign(owner, typed)}, **facts})
        assert answer["ok"], answer

    def stages(self, count: int, among: list[int] | None = None) -> list[int]:
        """Reserve `count` seats, one after the other, and return their stages."""
        return [self.enrolment.reserve(None, among)["stage"] for _ in range(count)]


@pytest.fixture
def entrance(directory: RunDirectory) -> Iterator[Entrance]:
    """All founders live; what a test writes down is taken back."""
    before = directory.info["workers"]
    entrance = Entrance(directory)
    for number, seat in enumerate(entrance.seats):
        seat.pid = 1000 + number
    yield entrance
    entrance.recorder.close()
    directory.update_info(workers=before)


def test_many_who_come_at_once_are_spread_over_the_stages(entrance: Entrance) -> None:
    assert Counter(entrance.stages(30)) == {0: 10, 1: 10, 2: 10}
    entrance.enrolment.release("worker-6")  # the first that came: to the stage with the most to compute
    assert entrance.stages(1) == [2]
    assert Counter(entrance.stages(4, among=[1, 2])) == {1: 2, 2: 2}


def test_before_any_process_has_started_all_count(entrance: Entrance) -> None:
    for seat in entrance.seats:
        seat.pid = None
    assert entrance.stages(1) == [2]
    entrance.enrol("worker-6")
    assert [seat.name for seat in entrance.started] == ["worker-6"]
    assert Counter(entrance.stages(5)) == {0: 2, 1: 2, 2: 1}


def test_who_waits_until_all_know_it_counts_already(entrance: Entrance) -> None:
    entrance.seats["worker-0"].is_told_to_go = True
    assert entrance.stages(1) == [2]
    entrance.enrol("worker-6")
    assert not entrance.started
    assert not entrance.enrolment.knows("worker-6")
    assert Counter(entrance.stages(5)) == {0: 2, 1: 2, 2: 1}


async def test_who_cannot_be_counted_on_leaves_room(entrance: Entrance) -> None:
    """Workers that leave, that are set aside, and those whose machine is away."""
    assert entrance.stages(1) == [2]
    entrance.enrol("worker-6", remote=True)
    assert entrance.stages(1) == [2], "its machine has not come"
    entrance.enrolment.release("worker-7")
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1")
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    entrance.hosts.seat("worker-6", writer)
    assert entrance.stages(1) == [0], "it is on its way"
    entrance.seats["worker-2"].is_leaving = True
    assert entrance.stages(2) == [1, 1]
    entrance.seats["worker-1"].set_aside(3.0)
    assert entrance.stages(1) == [0]
    entrance.hosts.drop("worker-6")
    server.close()


def test_a_full_stage_is_passed_over(entrance: Entrance) -> None:
    for _ in range(14):
        worker = entrance.enrolment.reserve(2)["worker"]
        entrance.enrol(worker, remote=True)  # its machine stays away, but its seat stays its own
    assert entrance.enrolment.reserve(2)["error"] == "stage 2 has 16 workers already; choose another stage"
    assert Counter(entrance.stages(28)) == {0: 14, 1: 14}
    assert "each stage has 16 workers already" in entrance.enrolment.reserve(None)["error"]
    assert "can work at no stage" in entrance.enrolment.reserve(None, [])["error"]
