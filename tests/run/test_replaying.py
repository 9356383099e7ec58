"""What a replay reports is compared with the record both ways, and by how often each was reported."""

from typing import Any

import pytest

from pluralis_lab.replaying import Life, Told, compare
from pluralis_lab.store import Event

TAIL = ("worker-1", 0)


def record(*rounds: int, starts: tuple[int, ...] = (0,), ends: str = "serving") -> list[Event]:
    """Return what a run of one worker recorded: `starts` are the places in `rounds` where it was started."""
    events: list[Event] = []

    def write(kind: str, worker: str | None, round_: int | None, **body: Any) -> None:
        events.append(Event(len(events) + 1, 0.0, kind, worker, round_, body))

    for place, round_ in enumerate(rounds):
        if place in starts:
            write("run.state", None, None, state="starting")
            write("worker.state", "worker-1", None, state="starting", incarnation=starts.index(place))
        write("worker.round", "worker-1", round_, tokens=64, work_flops=1)
        write("round", None, round_, tokens=64, loss=3.0)
    if ends == "serving":
        write("worker.state", "worker-1", len(rounds), state="serving", incarnation=len(starts) - 1)
    return events


def told(*rounds: int, life: Life = TAIL, ends: str = "serving") -> list[Told]:
    """Return what a replay reports of the same."""
    reports = []
    for round_ in rounds:
        reports.append(Told("worker.round", life[0], round_, (("tokens", 64), ("work_flops", 1))))
        reports.append(Told("round", None, round_, (("tokens", 64),)))
    if ends == "serving":
        reports.append(Told("worker.state", life[0], len(rounds), (("state", "serving"), ("incarnation", life[1]))))
    return reports


def test_the_same_reports_agree_also_of_several_replicas() -> None:
    assert not compare(record(0, 1, 2), {TAIL: told(0, 1, 2)})
    mate = [said for said in told(0, 1, 2) if said.kind == "round"]  # whose losses the recorder heard second
    assert not compare(record(0, 1, 2), {("worker-2", 0): mate, TAIL: told(0, 1, 2)})


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        pytest.param((0, 2), "round 1: tokens=64, work_flops=1, and not in the replay", id="less"),
        pytest.param((0, 1, 3, 2), "in the replay worker-1 reported worker.round of round 3", id="more"),
        pytest.param((0, 1, 1, 2), "in the replay the run reported round of round 1: tokens=64, and not", id="twice"),
        pytest.param((0, 1, 1, 1, 2), "tokens=64, work_flops=1, 2 times more, and not in the record", id="three times"),
    ],
)
def test_what_is_reported_less_more_or_twice_is_named(rounds: tuple[int, ...], said: str) -> None:
    replayed = told(*rounds, ends="")
    replayed += told(0, 1, 2)[-1:]
    assert any(said in difference for difference in compare(record(0, 1, 2), {TAIL: replayed}))


def test_what_a_process_that_ended_early_said_last_need_not_have_been_heard() -> None:
    assert not compare(record(0, 1, ends=""), {TAIL: told(0, 1, 2, ends="")})
    assert compare(record(0, 1, 3, ends=""), {TAIL: told(0, 1, 2, 3, ends="")})
    assert compare(record(0, 1, 2), {TAIL: [*told(0, 1, 2), *told(3, ends="")]}), "it had nothing left to say"


def test_rounds_that_a_later_start_trains_again_are_compared_with_its_own_reports() -> None:
    events = record(0, 1, 1, 2, starts=(0, 2))  # the first start stopped when its report of round 2 was under way
    lives = {TAIL: told(0, 1, 2, ends=""), ("worker-1", 1): told(1, 2, ends="")}
    lives["worker-1", 1].append(Told("worker.state", "worker-1", 4, (("state", "serving"), ("incarnation", 1))))
    assert not compare(events, lives)
    del lives["worker-1", 1][:2]
    assert [said.partition(":")[0] for said in compare(events, lives)] == [
        "worker-1 reported worker.round of round 1",
        "the run reported round of round 1",
    ]
