"""The fold of events into the picture."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_run import BACK_AT, KILLED, KILLED_AT, UNIGRAM_NATS, event_rows, make_run, write_rows

from pluralis_lab.errors import StoreError
from pluralis_lab.store import Event, RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.record import summary_rows


def test_folding_piece_by_piece_gives_the_same_picture_as_folding_all_at_once(finished_run: RunDirectory) -> None:
    events = finished_run.events()
    whole = RunPicture.of(finished_run)
    luck, picture, at = random.Random(3), RunPicture.of(finished_run, read=False), 0
    while at < len(events):
        step = luck.randint(1, 97)
        picture.update(events[at : at + step])
        at += step
    assert picture == whole
    assert picture.to_json() == whole.to_json()


def test_a_gap_is_refused_and_names_where_to_read_on(finished_run: RunDirectory) -> None:
    events = finished_run.events(limit=20)
    picture = RunPicture.of(finished_run, read=False)
    with pytest.raises(StoreError, match=r"seq=8 follows seq=6.*since=6"):
        picture.update(events[:6] + events[7:])
    assert picture.seq == 6
    picture.update(events[6:])
    assert picture.seq == 20


def test_an_event_is_never_counted_twice(finished_run: RunDirectory) -> None:
    events = finished_run.events(limit=5)
    picture = RunPicture.of(finished_run, read=False).update(events)
    with pytest.raises(StoreError, match="seq=5 follows seq=5"):
        picture.update(events[-1:])


def test_the_picture_has_the_runs_figures(finished_run: RunDirectory) -> None:
    picture = RunPicture.of(finished_run)
    events = finished_run.events()
    assert picture.state == "stopped"
    assert picture.headline == "finished"
    assert picture.rounds_done == 200
    assert len(picture.loss.x) == 200
    assert picture.loss.x[:3] == [0, 1, 2]
    assert picture.validation.x == [24, 49, 74, 99, 124, 149, 174, 199]
    assert picture.unigram_nats == UNIGRAM_NATS
    assert len(picture.epochs) == 8
    flops = math.fsum(e.body["work_flops"] for e in events if e.kind == "worker.round")
    assert picture.total_work_flops == pytest.approx(flops, rel=1e-12)
    assert sum(picture.work_shares().values()) == pytest.approx(1, abs=1e-12)
    assert sum(picture.ownership().values()) == pytest.approx(1, abs=1e-12)
    assert sum(picture.owned_wei().values()) == 8 * 1_000_000 * 10**18


def test_a_death_and_a_return_are_marked_once(finished_run: RunDirectory) -> None:
    picture = RunPicture.of(finished_run)
    worker = picture.workers[KILLED]
    assert worker.deaths == 1
    assert worker.incarnation == 1
    told = [(mark.kind, mark.round, mark.worker) for mark in picture.marks if mark.kind != "reroute"]
    assert told == [("death", KILLED_AT, KILLED), ("return", BACK_AT, KILLED)]
    assert picture.reroutes == 4


def test_who_is_set_aside_is_marked_and_has_not_died(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    before, live, round_ = len(picture.marks), picture.num_live, picture.round
    at, seq = (picture.last_time or 0.0) + 1.0, picture.seq
    aside = {"state": "aside", "by": "worker-0", "silent_s": 4.5, "reason": "silent for 4.5 s"}
    picture.update([Event(seq + 1, at, "worker.state", "worker-1", None, aside)])
    assert picture.num_live == live - 1
    picture.update(
        Event(seq + 2 + n, at + 12.0, "worker.state", "worker-1", round_, {"state": state, "incarnation": 1})
        for n, state in enumerate(["joining", "syncing", "active"])
    )
    assert [(mark.kind, mark.worker, mark.text) for mark in picture.marks[before:]] == [
        ("aside", "worker-1", f"worker-1 is set aside by worker-0 in round {round_}: silent for 4.5 s"),
        ("back", "worker-1", f"worker-1 is back in round {round_}, after 12 s"),
    ]
    assert (picture.num_live, picture.workers["worker-1"].deaths) == (live, 0)


def test_how_much_of_its_state_a_joiner_has_is_shown(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    seq, at = picture.seq, picture.last_time or 0.0
    body = {"state": "syncing", "received_bytes": 12_400_000, "size_bytes": 29_100_000}
    picture.update([Event(seq + 1, at, "worker.state", "worker-1", None, body)])
    assert picture.workers["worker-1"].reason == "12.4 of 29.1 MB of its stage's state are here"
    picture.update([Event(seq + 2, at, "worker.state", "worker-1", 3, {"state": "active"})])
    assert picture.workers["worker-1"].reason == ""


def test_a_dead_worker_is_not_live_and_sends_nothing(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    assert picture.workers[KILLED].is_dead
    assert picture.workers[KILLED].bytes_per_s is None
    assert picture.workers[KILLED].round == KILLED_AT - 1
    assert picture.num_live == 5
    assert (picture.workers["worker-0"].bytes_per_s or 0) > 0


def test_rounds_repeated_after_a_resume_replace_the_old_ones(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    worker, total = picture.workers["worker-0"], picture.workers["worker-0"].total_work_flops
    old = worker.work_flops.y[-1]
    body = {"tokens": 10, "work_flops": old + 5.0, "grad_norm": 1.0, "agreement": None}
    picture.update([Event(picture.seq + 1, 0.0, "worker.round", "worker-0", 91, body)])
    assert worker.total_work_flops == pytest.approx(total + 5.0)
    picture.update(
        [Event(picture.seq + 1, 0.0, "round", None, 75, {"loss": 9.0, "tokens": 1, "seconds": 1.0, "tokens_per_s": 1.0})]
    )
    assert picture.rounds_done == 76
    assert picture.loss.y[75] == 9.0
    assert len(picture.loss.x) == 92


def test_the_newest_turn_of_the_subspace_is_a_mark_with_the_losses_around_it(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    before = list(picture.marks)
    for turn, after in ((80, 2.25), (90, 2.125)):
        body = {"version": 1, "loss_before": 2.0, "loss_after": after}
        picture.update([Event(picture.seq + 1, 0.0, "refresh", "worker-4", turn, body)])
    assert picture.marks[:-1] == before
    said = "the subspace turned with the step of round 90: validation loss 2.000 before that round, 2.125 after it"
    assert picture.marks[-1].text == said  # the turn and a step of the optimizer together
    broken = {"version": 2, "loss_before": None, "loss_after": math.nan}
    picture.update([Event(picture.seq + 1, 0.0, "refresh", "worker-4", 95, broken)])
    assert picture.marks[-1].round == 90


def test_bytes_that_are_told_after_the_last_round_are_counted_and_are_no_rate(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    worker = picture.workers["worker-0"]
    before = (worker.bytes_out, worker.bytes_in, worker.links["worker-2"].get("control_bytes", 0))
    rate, num_rounds = worker.bytes_per_s, worker.recent.num_rounds
    body = {"links": {"worker-2": {"control_bytes": 700}, "worker-5": {"control_bytes": 20}}, "bytes_out": 720, "bytes_in": 30}
    picture.update([Event(picture.seq + 1, (picture.last_time or 0.0) + 100, "links", "worker-0", None, body)])
    assert (worker.bytes_out, worker.bytes_in, worker.links["worker-2"].get("control_bytes", 0)) == (
        before[0] + 720,
        before[1] + 30,
        before[2] + 700,
    )
    assert worker.links["worker-5"] == {"control_bytes": 20}
    assert (worker.bytes_per_s, worker.recent.num_rounds) == (rate, num_rounds)
    assert worker.heard_at == picture.last_time


def test_a_loss_that_is_not_finite_is_a_mark_and_not_a_point(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    before = len(picture.loss.x)
    picture.update([Event(picture.seq + 1, 0.0, "round", None, 92, {"loss": math.nan, "tokens": 1})])
    assert len(picture.loss.x) == before
    assert picture.marks[-1].kind == "diverged"


def test_an_unknown_kind_of_event_is_passed_over(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    picture.update([Event(picture.seq + 1, 0.0, "of.a.later.version", None, None, {"x": 1})])
    assert picture.rounds_done == 92


def test_a_worker_that_joins_later_appears(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    body = {"state": "active", "stage": 1, "replica": 2, "participant": "lab-z", "device": "cuda:0"}
    picture.update([Event(picture.seq + 1, 0.0, "worker.state", "late", 91, body)])
    assert [worker.name for _, group in picture.grouped() for worker in group].index("late") == 4
    assert "lab-z" in picture.work_shares()


def test_a_worker_that_is_attached_is_there_at_once_and_marked_when_it_takes_part(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    owner = "0x" + "Cd" * 20
    told = {"stage": 2, "replica": 2, "participant": "lab-z", "device": "cuda:1"}
    picture.update([Event(picture.seq + 1, 0.0, "enrolled", "worker-6", None, {**told, "address": owner})])
    worker = picture.workers["worker-6"]
    assert (worker.state, worker.device, worker.parameters) == ("starting", "cuda:1", picture.stage_parameters[2])
    assert picture.participants[-1] == "lab-z"
    marked = len(picture.marks)
    for state in ("starting", "joining", "syncing", "warming", "active", "dead", "starting", "active"):
        event = Event(picture.seq + 1, 0.0, "worker.state", "worker-6", 91, {"state": state, **told})
        assert picture.update([event]).workers["worker-6"].state == state
    marks = [(mark.kind, mark.round, mark.worker) for mark in picture.marks[marked:]]
    assert marks == [("joined", 91, "worker-6"), ("death", 91, "worker-6"), ("return", 91, "worker-6")]
    body = {"epoch": 9, "shares": {"lab-z": [1, 1]}, "amounts": {owner.lower(): 7}}
    picture.update([Event(picture.seq + 1, 0.0, "epoch", None, 91, body)])
    assert picture.owned_wei()["lab-z"] == 7


def test_silence_is_measured_by_events_or_for_the_virtual_engine_by_arrival(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    assert picture.last_time is not None
    assert picture.silent_s(picture.last_time + 12) == pytest.approx(12)
    virtual = replace(picture, engine="virtual")
    assert virtual.silent_s(1000.0, heard_at=990.0) == 10.0
    assert virtual.silent_s(1000.0) is None


@pytest.mark.parametrize(
    ("body", "headline"),
    [
        ({"state": "failed", "reason": "worker-1: out of memory"}, "failed: worker-1: out of memory"),
        ({"state": "stopped", "reason": ""}, "stopped after 92 of 200 rounds"),
        ({"state": "serving"}, "serving"),
        ({"state": "running"}, "running"),
    ],
)
def test_the_headline_says_how_the_run_is(half_run: RunDirectory, body: dict[str, str], headline: str) -> None:
    picture = RunPicture.of(half_run)
    picture.update([Event(picture.seq + 1, 0.0, "run.state", None, None, body)])
    assert picture.headline == headline


def test_before_the_first_event_the_workers_of_the_spec_are_starting(empty_run: RunDirectory) -> None:
    picture = RunPicture.of(empty_run)
    assert picture.headline == "starting six workers…"
    assert [stage for stage, _ in picture.grouped()] == [0, 1, 2]


def test_one_worker_is_not_spoken_of_as_many(tmp_path: Path) -> None:
    run = make_run(tmp_path, stages=1, replicas=1)
    assert RunPicture.of(run).headline == "starting one worker…"


def test_agreement_is_absent_in_a_stage_with_one_replica(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=10, replicas=1)
    picture = RunPicture.of(write_rows(run, event_rows(run)))
    assert all(worker.agreement.mean() is None for worker in picture.workers.values())


def test_an_exchange_brings_the_agreement_that_rounds_between_do_not_have(finished_run: RunDirectory) -> None:
    picture = RunPicture.of(finished_run)
    assert not picture.workers["worker-0"].exchanges
    assert "exchanges between replicas" not in dict(summary_rows(picture))
    exchanges = [
        Event(picture.seq + 1 + n, n * 1.0, "exchange", "worker-0", round_, {"late": late, "waited": waited, "observed": seen})
        for n, (round_, late, waited, seen) in enumerate(
            [
                (219, 1, True, {"worker-0": [1.0, 0.5], "worker-1": [1.0, 0.75]}),
                (239, 4, False, {"worker-0": [1.0, 0.25], "worker-1": [2.0, None]}),
                (259, 0, True, {"worker-1": [1.0, None]}),
            ]
        )
    ]
    picture.update(exchanges)
    worker = picture.workers["worker-0"]
    assert (worker.exchanges, worker.exchanges_waited, worker.exchange_late) == (3, 2, 4)
    assert list(zip(worker.agreement.x, worker.agreement.y, strict=True))[-2:] == [(219, 0.5), (239, 0.25)]
    assert dict(summary_rows(picture))["exchanges between replicas"] == "3, merged 4 rounds later, 2 waited for"


def _report(picture: RunPicture, worker: str, round_: int, at: float, *, compute_s: float, tokens: int = 512) -> None:
    body = {"tokens": tokens, "work_flops": 1.0, "compute_s": compute_s, "bytes_out": 100.0}
    picture.update([Event(picture.seq + 1, at, "worker.round", worker, round_, body)])


def _state(picture: RunPicture, state: str, at: float, worker: str | None = None) -> None:
    kind = "run.state" if worker is None else "worker.state"
    picture.update([Event(picture.seq + 1, at, kind, worker, None, {"state": state})])


def test_how_busy_a_worker_is_is_its_compute_over_the_time_of_its_last_rounds(empty_run: RunDirectory) -> None:
    picture = RunPicture.of(empty_run)
    _state(picture, "running", 0.0)
    _state(picture, "active", 0.0, "worker-0")
    _report(picture, "worker-0", 0, 100.0, compute_s=90.0)  # what it took to start
    assert picture.workers["worker-0"].recent.busy is None
    for round_ in range(1, 11):
        _report(picture, "worker-0", round_, 100.0 + 2 * round_, compute_s=0.5)
    assert picture.workers["worker-0"].recent.busy == pytest.approx(0.25)
    for round_ in range(11, 31):
        _report(picture, "worker-0", round_, 100.0 + 2 * round_, compute_s=1.5)
    assert picture.workers["worker-0"].recent.busy == pytest.approx(0.75)
    assert picture.workers["worker-0"].recent.num_rounds == 20
    _report(picture, "worker-0", 31, 162.0, compute_s=1_000.0)
    assert picture.workers["worker-0"].recent.busy == 1.0


def test_time_away_is_no_time_of_doing_nothing(empty_run: RunDirectory) -> None:
    picture = RunPicture.of(empty_run)
    _state(picture, "running", 0.0)
    for name in ("worker-0", "worker-1"):
        _state(picture, "active", 0.0, name)
        for round_ in range(8):
            _report(picture, name, round_, 1.0 + round_, compute_s=0.5)
    _state(picture, "dead", 9.0, "worker-1")
    assert picture.workers["worker-1"].recent.busy == 0.5  # as it was
    _state(picture, "active", 500.0, "worker-1")
    for round_ in range(8, 10):
        _report(picture, "worker-1", round_, 500.0 + round_, compute_s=0.5)
    assert picture.workers["worker-1"].recent.busy == 0.5
    _state(picture, "paused", 600.0)
    _state(picture, "running", 9_000.0)
    for round_ in range(10, 12):
        _report(picture, "worker-0", round_, 9_000.0 + round_, compute_s=0.5)
    assert picture.workers["worker-0"].recent.busy == 0.5


def test_idle_is_who_takes_part_in_a_run_that_trains_and_has_next_to_nothing_to_do(empty_run: RunDirectory) -> None:
    picture = RunPicture.of(empty_run)
    _state(picture, "running", 0.0)
    work = {"worker-0": (0.06, 512), "worker-1": (0.04, 512), "worker-2": (0.5, 0), "worker-3": (0.04, 512)}
    for name in work:
        _state(picture, "active", 0.0, name)
    for round_ in range(30):
        for name, (compute_s, tokens) in work.items():
            if name != "worker-3" or round_ >= 25:  # which has just come
                _report(picture, name, round_, 1.0 + round_, compute_s=compute_s, tokens=tokens)

    def idle() -> list[str]:
        names = [name for name, worker in picture.workers.items() if picture.is_idle(worker)]
        assert picture.num_idle == len(names)
        assert [worker["name"] for worker in picture.to_json()["workers"] if worker["idle"]] == names
        return names

    assert idle() == ["worker-1", "worker-2"]
    _report(picture, "worker-3", 30, 31.0, compute_s=0.04)
    assert idle() == ["worker-1", "worker-2", "worker-3"]
    _report(picture, "worker-2", 30, 31.0, compute_s=0.5, tokens=512)
    assert idle() == ["worker-1", "worker-3"]
    _state(picture, "dead", 32.0, "worker-1")
    assert idle() == ["worker-3"]
    for state in ("paused", "serving", "stopped"):
        _state(picture, state, 33.0)
        assert idle() == []


def test_the_workers_phases_and_what_they_send_are_summed(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    assert picture.phases() == {"active": 5, "dead": 1}
    rates = [worker.bytes_per_s for worker in picture.workers.values() if worker.name != KILLED]
    assert picture.bytes_per_s == pytest.approx(math.fsum(rate or math.nan for rate in rates))
    _state(picture, "stopped", 0.0)
    assert picture.bytes_per_s is None
