"""Virtual machines of different speeds, links of their own for some pairs, workers that come and go: and always the same run."""

from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.churn import Absence, Churn
from pluralis_lab.corpus import Corpus
from pluralis_lab.links import Links
from pluralis_lab.parts import Boundary, Dense, Subspace
from pluralis_lab.spec import worker_name
from pluralis_lab.views.fold import RunPicture
from tests.engines.conftest import Observed, run_virtual, tiny_spec


def busy_seconds(seen: Observed) -> dict[str, float]:
    total: dict[str, float] = {}
    for worker, body in seen.of_kind("work"):
        total[worker] = total.get(worker, 0.0) + body["compute_s"]
    return total


def test_half_the_speed_takes_twice_as_long_for_the_same_work(text: Corpus) -> None:
    spec = tiny_spec(text, eval_every=0)
    plain, slow = run_virtual(spec, text), run_virtual(spec, text, speeds={"worker-1": 0.5})
    assert slow.losses == plain.losses
    before, after = busy_seconds(plain), busy_seconds(slow)
    assert after["worker-1"] == pytest.approx(2 * before["worker-1"])
    assert after["worker-0"] == pytest.approx(before["worker-0"])


UNEQUAL = (1.0, 1.0, 0.5, 0.25)


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("stages", [1, 3])
def test_unequal_replicas_reach_nine_tenths_of_the_sum_of_their_speeds_with_the_same_losses(text: Corpus, stages: int) -> None:
    boundary: Boundary = Dense() if stages == 1 else Subspace(4, "same")
    spec = tiny_spec(
        text,
        stages=stages,
        replicas=4,
        steps=15,
        batch_size=8,
        micro_batches=8,
        boundary=boundary,
        eval_every=0,
        checkpoint_every=15,
    )

    def trained(speeds: tuple[float, ...]) -> tuple[Observed, float]:
        machines = {worker_name(n): 1e-3 * speeds[n % 4] for n in range(spec.num_workers)}
        seen = run_virtual(spec, text, speeds=machines)
        ended = {body["round"]: at for _, at, kind, body in seen.reports if kind == "round"}
        return seen, ended[14] - ended[6]

    (equal, equal_s), (unequal, unequal_s) = trained((1.0,) * 4), trained(UNEQUAL)
    assert equal_s * 4 / unequal_s >= 0.9 * sum(UNEQUAL)
    for number, loss in equal.losses.items():
        assert unequal.losses[number] == pytest.approx(loss, abs=1e-12, rel=0)
    done = {worker: body["tokens"] for worker, body in unequal.of_kind("work") if body["round"] == 14}
    last = [done[worker_name(spec.num_workers - 4 + n)] / spec.tokens_per_micro_batch for n in range(4)]
    assert sum(last) == spec.num_micro_batches
    assert last[0] > 1.5 * last[2] > 2 * last[3] > 0, last
    assert len({digest for digests in unequal.digests().values() for digest in digests}) == stages


def test_a_slow_pair_slows_what_crosses_it_alone(text: Corpus) -> None:
    spec = tiny_spec(text, eval_every=0)
    times = {}
    for pairs in ((), (("worker-0", "worker-1", "1gbit", 300),), (("worker-0", "worker-2", "1gbit", 300),)):
        seen = run_virtual(spec, text, links=Links("1gbit", 1, pairs=pairs))
        times[pairs] = [at for _, at, kind, _ in seen.reports if kind == "round"][-1]
    plain, crossed, beside = times.values()
    assert crossed > plain + spec.steps * 2 * 0.29, "there and back in every round"
    assert beside == pytest.approx(plain, abs=0.31), "nothing but a Hello crosses it"


def test_an_uplink_changes_when_things_happen_and_not_what_is_computed(text: Corpus) -> None:
    spec = tiny_spec(text, replicas=3)
    plain, shared = (run_virtual(spec, text, links=Links("1mbit", 5, uplink=uplink)) for uplink in (None, "1mbit"))
    assert shared.losses == plain.losses
    assert shared.digests() == plain.digests()
    assert shared.swarm.now > 1.3 * plain.swarm.now
    assert not [body for _, body in shared.of_kind("state") if body["state"] in ("aside", "dead")]


CHURN = Churn(
    [Absence("worker-3", 0.02, 0.01), Absence("worker-1", 0.03, 0.02), Absence("worker-4", 0.05), Absence("worker-3", 0.08, 0.01)]
)


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("uplink", [None, "50mbit"], ids=["wires", "uplink"])
@pytest.mark.parametrize("changes", [{}, {"schedule": "async"}], ids=["sync", "async"])
def test_the_same_seed_gives_the_same_run_to_the_bit_with_churn(
    text: Corpus, changes: dict[str, Any], uplink: str | None
) -> None:
    spec = tiny_spec(text, replicas=2, steps=30, **changes)
    links = Links("100mbit", 2, pairs=[("worker-2", "*", "10mbit", 5)], uplink=uplink)

    def once() -> Observed:
        return run_virtual(spec, text, links=links, speeds={"worker-5": 0.3}, churn=CHURN)

    first, second = once(), once()
    assert first.reports == second.reports
    assert first.digests() == second.digests()
    deaths = [worker for worker, body in first.of_kind("state") if body["state"] == "dead"]
    assert deaths == ["worker-3", "worker-1", "worker-4", "worker-3"]
    assert [body["state"] for worker, body in first.of_kind("state") if worker == "worker-4"][-1] == "dead"
    assert {worker for worker, body in first.of_kind("state") if body["state"] == "joining"} == {"worker-1", "worker-3"}
    if not changes:
        undisturbed = run_virtual(tiny_spec(text, replicas=2, steps=30), text)
        assert list(first.losses.values()) == pytest.approx(list(undisturbed.losses.values()), rel=1e-12)


def simulated(home: Path, **circumstances: Any) -> pl.Run:
    spec = pl.RunSpec(
        model=pl.GPT(n_layer=2, n_head=2, d_model=16, context=16),
        stages=2,
        replicas=2,
        boundary=pl.Dense(),
        steps=12,
        batch_size=4,
        micro_batches=2,
        eval_every=0,
        checkpoint_every=3,
        epoch_rounds=4,
    )
    return pl.simulate(spec, home=home, **circumstances)


def test_a_simulation_is_told_all_of_it_and_repeats(tmp_path: Path) -> None:
    circumstances = {
        "links": pl.Links("100mbit", 2, pairs=[("worker-0", "worker-3", "10mbit", 5)], uplink="50mbit"),
        "speeds": {"worker-1": 0.5},
        "churn": pl.Churn([pl.Absence("worker-2", 0.03, 0.02)]),
    }
    first, second = (simulated(tmp_path, **circumstances) for _ in range(2))
    first.wait()
    second.wait()
    assert first.metrics().equals(second.metrics())
    assert [event.body["state"] for event in first.events("worker.state") if event.worker == "worker-2"] == [
        *("active", "dead", "joining", "syncing", "warming", "active", "serving")
    ]
    assert first.audit().ok


def test_a_worker_that_stands_still_is_set_aside_as_the_record_tells(tmp_path: Path) -> None:
    churn = pl.Churn([pl.Absence("worker-2", 0.06, 9.0, frozen=True)])
    run = simulated(tmp_path, churn=churn)
    run.wait()
    told = [(event.body["state"], event.time) for event in run.events("worker.state") if event.worker == "worker-2"]
    assert [state for state, _ in told] == ["active", "aside", "joining", "syncing", "serving"]
    aside_at, back_at = told[1][1], told[-1][1]
    assert 4.0 < aside_at < 8.0 < 9.06 < back_at
    [aside] = [event.body for event in run.events("worker.state") if event.body["state"] == "aside"]
    assert aside["by"] == "worker-3"
    assert aside["silent_s"] >= 4.0
    marks = [mark for mark in RunPicture.of(run._directory).marks if mark.kind in ("aside", "back", "death")]
    assert [mark.kind for mark in marks] == ["aside", "back"]
    assert "worker-2 is set aside by worker-3" in marks[0].text
    assert (run.workers()["deaths"] == 0).all()
    assert run.audit().ok


def test_a_worker_cannot_stand_still_for_ever() -> None:
    with pytest.raises(pl.PluralisError, match="give for_s"):
        pl.Absence("worker-2", 1, frozen=True)


def test_a_simulation_whose_stage_is_empty_fails_and_can_be_resumed(tmp_path: Path) -> None:
    run = simulated(tmp_path, churn=pl.Churn([pl.Absence("worker-2", 0.05), pl.Absence("worker-3", 0.06)]))
    with pytest.raises(pl.PluralisError, match=r"stage 1 has no live replica left .* run\.resume\(\) goes on"):
        run.wait()
    done = len(run.metrics())
    assert 3 <= done < 12
    run.resume()
    run.wait()
    assert sorted(set(run.metrics()["loss"].dropna().index)) == list(range(12))


def test_a_simulation_whose_stage_was_empty_goes_on_from_the_last_checkpoint_when_somebody_comes(tmp_path: Path) -> None:
    undisturbed = simulated(tmp_path)
    undisturbed.wait()
    churn = pl.Churn([pl.Absence("worker-2", 0.05, 0.5), pl.Absence("worker-3", 0.06, 0.2), pl.Absence("worker-0", 0.5, 0.1)])
    runs = [simulated(tmp_path, churn=churn) for _ in range(2)]
    for run in runs:
        run.wait()
        # Who adds up which micro-batches depends on who is there, and so does the rounding of the sums.
        assert run.metrics()["loss"].dropna().tolist() == pytest.approx(undisturbed.metrics()["loss"].dropna().tolist(), rel=1e-6)
        assert run.audit().ok, str(run.audit())
        # What somebody had signed for others and not handed in is gone with it.
        assert 0.95 < run.contributions()["tokens"].sum() / undisturbed.contributions()["tokens"].sum() <= 1
    assert runs[0].metrics().equals(runs[1].metrics())
    states = [(event.time, event.body["state"]) for event in runs[0].events("run.state")]
    assert [state for _, state in states] == ["running", "paused", "starting", "running", "stopped"]
    assert states[1][0] == states[3][0] > 0.2, "it goes on in the moment in which somebody comes"
    shown = [[(event.kind, event.worker, event.round) for event in run.events("worker.state", "round")] for run in runs]
    assert shown[0] == shown[1]
    assert [mark.kind for mark in RunPicture.of(runs[0]._directory).marks].count("death") == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"speeds": {"worker-9": 1.0}}, "the run has worker-0, worker-1"),
        ({"speeds": {"worker-1": 0}}, "give a number above 0"),
        ({"speeds": 0.5}, "speed of some workers"),
        ({"links": pl.Links(pairs=[("worker-0", "worker-8", "1mbit", 1)])}, "'worker-8'; the run has"),
        ({"churn": pl.Churn([pl.Absence("worker-7", 1)])}, "'worker-7'; the run has"),
        ({"churn": [("worker-1", 1)]}, r"pl\.Churn"),
    ],
)
def test_circumstances_that_make_no_sense_are_refused_before_anything_starts(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(pl.PluralisError, match=said):
        simulated(tmp_path, **wrong)
    assert not list(tmp_path.glob("runs/*"))
