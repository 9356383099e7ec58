"""Plans: what is modelled takes exactly the virtual time of what is computed, and sizes that nobody here has are no obstacle."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.models.cost import stage_parameters
from pluralis_lab.planning import ROUNDS, num_rounds, rounds_after
from pluralis_lab.spec import RunSpec
from tests.engines.conftest import Observed, run_virtual, tiny_spec

LINKS = pl.Links("2mbit", 7, pairs=[("worker-1", "worker-3", "1mbit", 30)])
CASES: dict[str, dict[str, Any]] = {
    "subspace": {},
    "bfloat16": {"boundary": pl.Subspace(4), "dtype": "float32"},
    "int8": {"boundary": pl.Int8(), "sync": pl.FullSync(payload="int8")},
    "topk": {"boundary": pl.TopK(3)},
    "async": {"schedule": "async"},
    "slices": {"boundary": pl.Dense(), "sync": pl.SliceSync(fraction=0.3, every=2, payload="bfloat16")},
    "async, diloco": {"schedule": "async", "boundary": pl.Dense(), "sync": pl.DiLoCo(inner_steps=5)},
    "butterfly": {"sync": pl.FullSync(transport="butterfly")},
    "uplink": {"replicas": 3},
    "uplink, async, slices": {"schedule": "async", "sync": pl.SliceSync(fraction=0.3, every=2)},
    "one stage": {"stages": 1, "boundary": pl.Dense()},
}


def speed_of(seen: Observed, spec: RunSpec) -> float:
    """Return the tokens a virtual second in the second half of the rounds that a plan counts."""
    ends: dict[int, float] = {}
    for _, at, kind, body in seen.reports:
        if kind == "round":
            ends.setdefault(body["round"], at)
    rounds = num_rounds(spec)
    skipped = rounds // 2
    tokens = spec.num_micro_batches * spec.tokens_per_micro_batch * (rounds - skipped)
    return tokens / (ends[rounds - 1] - ends[skipped - 1])


@pytest.mark.drawn(keep=4)
@pytest.mark.parametrize("case", CASES)
def test_a_plan_takes_the_virtual_time_of_the_run(text: Corpus, case: str) -> None:
    spec = tiny_spec(text, **{"replicas": 2, **CASES[case]})
    circumstances: dict[str, Any] = {"links": LINKS, "speeds": {"worker-2": 0.01, "worker-0": 0.02}}
    if spec.stages == 1:
        circumstances = {"links": pl.Links("2mbit", 7), "speeds": {"worker-1": 0.01}}
    if "uplink" in case:
        circumstances["links"] = dataclasses.replace(LINKS, uplink="1.5mbit")
    planned = pl.plan(spec, vocab=text.info().vocab, **circumstances)
    rounds = num_rounds(spec)
    steps = rounds + rounds_after(spec)
    changes = {"steps": steps, "eval_every": 0, "eval_batches": 1, "checkpoint_every": steps, "epoch_rounds": steps}
    whole = RunSpec.model_validate({**spec.model_dump(), **changes})
    computed = run_virtual(whole, text, **circumstances)
    # Which chunk a replica checks follows from its key, and a stage's last chunk is smaller than the others.
    exact = 0.02 if spec.is_butterfly else 1e-9
    assert planned.tokens_per_s == pytest.approx(speed_of(computed, whole), rel=exact)
    sent = sum(body["bytes_out"] for _, body in computed.of_kind("work") if rounds // 2 <= body["round"] < rounds) / (
        rounds - rounds // 2
    )
    assert sum(planned.bytes_per_round.values()) == pytest.approx(sent, rel=exact)


def test_a_plan_of_vectors(tmp_path: Path) -> None:
    digits = open_corpus("digits", context=None, home=tmp_path)
    spec = RunSpec(
        model=pl.MLP([64, 32, 10]),
        data="digits",
        stages=2,
        steps=ROUNDS,
        batch_size=8,
        eval_every=0,
        eval_batches=1,
        checkpoint_every=ROUNDS,
        epoch_rounds=ROUNDS,
    )
    planned = pl.plan(spec, vocab=digits.info().vocab)
    assert planned.tokens_per_s == pytest.approx(speed_of(run_virtual(spec, digits), spec), rel=1e-9)


def test_more_replicas_than_can_send_to_each_other_add_up_for_each_other(text: Corpus) -> None:
    sync = pl.FullSync(transport="butterfly")
    spec = tiny_spec(text, stages=1, boundary=pl.Dense(), replicas=24, batch_size=2, micro_batches=1, sync=sync)
    planned = pl.plan(spec, vocab=text.info().vocab)
    sent = sum(planned.bytes_per_round.values()) / 24
    gradient = 8 * 17_520
    assert sent < 8 * gradient  # over gather it would be 23


LARGE = pl.RunSpec(
    model=pl.GPT(n_layer=32, n_head=32, d_model=4096, context=2048),
    stages=8,
    replicas=2,
    boundary=pl.Subspace(64),
    schedule="async",
    sync=pl.SliceSync(fraction=0.05, every=20),
    batch_size=8,
    micro_batches=8,
)


def test_six_billion_weights_are_planned_in_seconds_and_the_link_decides() -> None:
    def speed(rate: str) -> pl.Plan:
        return pl.plan(LARGE, links=pl.Links(rate, latency_ms=50), device_flops=100e12, vocab=50_257)

    fast, slow = speed("1gbit"), speed("1mbit")
    assert fast.num_workers == 16
    assert fast.tokens_per_s > 3 * slow.tokens_per_s
    assert slow.busiest[2] > 0.6
    assert fast.busy[0] > slow.busy[0]
    assert "virtual" in str(fast)
    assert "tokens a second" in fast._repr_html_()


def test_what_a_worker_sends_to_all_takes_its_time_on_the_uplink() -> None:
    """Seven gradients of 0.5 MB need 2.95 s at 10 Mbit/s, however fast the wires of the pairs are."""
    model = pl.GPT(n_layer=2, n_head=2, d_model=64, context=64)
    spec = pl.RunSpec(model=model, stages=1, replicas=8, boundary=pl.Dense(), sync=pl.FullSync())
    alone = pl.plan(spec, links=pl.Links("10mbit"))
    assert alone.round_s < 0.5
    assert "a wire of 10 Mbit/s and 1 ms for each pair, none shared" in str(alone)
    for rate in ("10mbit", "1gbit"):
        shared = pl.plan(spec, links=pl.Links(rate, uplink="10mbit"))
        assert 2.9 <= shared.round_s < 3.2
        assert shared.bytes_per_round["sync"] == alone.bytes_per_round["sync"]
        assert (shared.busiest[1], shared.links.uplink) == ("*", "10mbit")
        assert 0.9 < shared.busiest[2] <= 1
        assert "an uplink of 10 Mbit/s for each worker" in str(shared)
        assert f"the uplink of {shared.busiest[0]}" in str(shared)


def test_churn_costs_speed_and_an_empty_stage_is_named() -> None:
    spec = pl.RunSpec(model=pl.GPT(n_layer=2, n_head=2, d_model=64, context=64), stages=2, replicas=2, batch_size=8)
    speeds = {f"worker-{number}": 1e-3 for number in range(4)}
    plain = pl.plan(spec, speeds=speeds)
    away = pl.Churn([pl.Absence("worker-3", 4 * plain.round_s, 20 * plain.round_s)])
    assert pl.plan(spec, speeds=speeds, churn=away).tokens_per_s < 0.8 * plain.tokens_per_s
    with pytest.raises(pl.PluralisError, match="a stage has no live worker left"):
        pl.plan(spec, speeds=speeds, churn=pl.Churn([pl.Absence("worker-2", 0.1), pl.Absence("worker-3", 0.1)]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"device_flops": 0}, "a number above 0"),
        ({"vocab": 1}, "two tokens"),
        ({"speeds": {"worker-99": 1}}, "the run has worker-0"),
        ({"spec": {"stages": 2}}, r"pl\.RunSpec"),
    ],
)
def test_what_cannot_be_planned_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(pl.PluralisError, match=said):
        pl.plan(**{"spec": LARGE, **wrong})


def test_of_many_stages_the_least_the_middle_and_the_most_busy_are_written() -> None:
    few = pl.Plan(2, 1.0, 1.0, (0.5, 0.25), {}, ("-", "-", 0.0))
    many = pl.Plan(9, 1.0, 1.0, (0.3, 0.1, *[0.3] * 6, 0.7), {}, ("-", "-", 0.0))
    assert "stage 0 50%, stage 1 25% of the time" in str(few)
    assert "stage 1 10%, stage 4 30%, stage 8 70% of the time" in str(many)


def test_a_simulation_whose_compute_is_modelled_is_a_plan() -> None:
    spec = pl.RunSpec(model=pl.GPT(n_layer=2, n_head=2, d_model=64, context=64), stages=2, replicas=2, batch_size=8)
    links, speeds = pl.Links("80mbit", latency_ms=50), {"worker-3": 0.5}
    assert pl.simulate(spec, links=links, speeds=speeds, compute="modelled") == pl.plan(spec, links=links, speeds=speeds)
    with pytest.raises(pl.PluralisError, match="trains nothing"):
        pl.simulate(spec, compute="modelled", account="lab-a")  # type: ignore[call-overload]
    with pytest.raises(pl.PluralisError, match="choose 'real', or 'modelled'"):
        pl.simulate(spec, compute="model")  # type: ignore[call-overload]


def test_what_is_exchanged_after_the_last_round_is_not_in_a_plan() -> None:
    """A slice of 1/100 every 20 rounds is 1/2000 of the weights a round, also where a run of all those rounds would be short."""
    sync = pl.SliceSync(fraction=0.01, every=20)
    spec = pl.RunSpec(
        model=pl.GPT(n_layer=2, n_head=8, d_model=512, context=64), stages=2, replicas=2, boundary=pl.Subspace(64), sync=sync
    )
    planned = pl.plan(spec)
    weights = sum(stage_parameters(spec, stage, 256) for stage in range(2))
    # Each of the two replicas of a stage sends its slice to the other; a slice more or less is in the half that counts.
    assert planned.bytes_per_round["sync"] == pytest.approx(2 * 4 * weights / 2000, rel=0.6)
