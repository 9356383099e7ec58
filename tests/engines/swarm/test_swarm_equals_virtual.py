"""Real processes over hivemind compute what the simulation computes, and put on the wire what the codec promises."""

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest

import pluralis_lab as pl
from tests.engines.swarm.conftest import PEOPLE, assert_all_gone, descendants_of, folders_of_sockets, small_spec

RANK, CONTEXT = 8, 64
BYTES_A_VALUE = {"bfloat16": 2, "same": 4}
"""On the wire, by the boundary's wire dtype; "same" is the model's own, float32."""
written_at: dict[str, float] = {}
"""When a text was complete, at once before the run was stopped."""


# Values as they are on the wire differ from bfloat16 in nothing but the codec, which the tests of codecs have, and its bytes.
@pytest.fixture(scope="module", params=["bfloat16", pytest.param("same", marks=pytest.mark.deep)])
def pair(home: Path, request: pytest.FixtureRequest) -> tuple[pl.Run, pl.Run]:
    """The same spec in the swarm and in virtual time, both finished and stopped."""
    spec = small_spec(stages=2, steps=20, boundary=pl.Subspace(RANK, request.param), batch_size=16)
    simulated = pl.simulate(spec)
    simulated.wait(timeout_s=60)
    run = pl.launch(spec, account="lab-a", participants=PEOPLE)
    run.wait(timeout_s=90)
    assert run.generate("def ", 50).text
    written_at[run.id] = time.time()
    processes = descendants_of(run)
    assert len([process for process in processes if process.name() == "p2pd"]) == 4
    folder = Path(json.loads((run.path / "control.json").read_text())["socket"]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folders_of_sockets(processes) == {folder}
    run.stop()
    assert_all_gone(processes)
    assert not folder.exists()
    return run, simulated


def test_the_swarm_gives_the_losses_of_the_simulation(pair: tuple[pl.Run, pl.Run]) -> None:
    swarm, virtual = (run.metrics().set_index("round")["loss"].dropna() for run in pair)
    assert list(swarm.index) == list(virtual.index) == list(range(20))
    for number in range(20):
        assert swarm[number] == pytest.approx(virtual[number], rel=1e-4)


def test_the_swarm_gives_the_validation_losses_of_the_simulation(pair: tuple[pl.Run, pl.Run]) -> None:
    swarm, virtual = (run.metrics()["validation_loss"].dropna().tolist() for run in pair)
    assert len(swarm) == 1
    assert swarm == pytest.approx(virtual, rel=1e-4)


def test_bytes_at_the_socket_are_the_codecs_within_five_per_cent(pair: tuple[pl.Run, pl.Run]) -> None:
    run, _ = pair
    size = BYTES_A_VALUE[run.spec.boundary.wire]
    wires = [event.body for event in run.events("wire")]
    assert len(wires) == 2
    for wire in wires:
        forward, backward = size * RANK + 2 * (CONTEXT + 1) / CONTEXT, size * RANK
        assert wire["codec_forward"] == pytest.approx(forward)
        assert wire["codec_backward"] == pytest.approx(backward)
        assert forward < wire["forward_bytes_per_token"] <= 1.05 * forward
        assert backward < wire["backward_bytes_per_token"] <= 1.05 * backward


def test_what_is_sent_until_the_run_is_stopped_is_told(pair: tuple[pl.Run, pl.Run]) -> None:
    run, _ = pair
    told = [event for event in run.events("links") if event.time > written_at[run.id]]
    stages = {worker["name"]: worker["stage"] for worker in run.info["workers"]}
    assert {stages[event.worker] for event in told if event.worker is not None} == {0, 1}
    for finished in pair:
        sent = finished.workers().set_index("worker")["bytes_out"]
        assert finished.links().groupby("source")["bytes"].sum().to_dict() == sent.to_dict()


def test_receivers_record_norm_and_agreement_of_every_worker_and_round(pair: tuple[pl.Run, pl.Run]) -> None:
    run, _ = pair
    rounds = run.events("worker.round")
    assert len(rounds) == 4 * 20
    # On a busy machine a replica that is slow for a while may be dealt nothing in a round: the other one is then alone in it.
    worked = {(event.worker, event.round) for event in rounds if event.body["tokens"]}
    assert len(worked) > 4 * 20 / 2
    other = {"worker-0": "worker-1", "worker-1": "worker-0", "worker-2": "worker-3", "worker-3": "worker-2"}
    alone = {(worker, round_) for worker, round_ in worked if (other[worker], round_) not in worked}
    for event in rounds:
        place = (event.worker, event.round)
        assert event.body["grad_norm"] > 0 if place in worked else event.body["grad_norm"] is None
        assert -1 <= event.body["agreement"] <= 1 if place in worked - alone else event.body["agreement"] is None
    signed = [
        line["body"]
        for lines in run._directory.evidence.statements_by_epoch().values()
        for line in lines
        if line["body"]["kind"] == "contribution"
    ]
    by_place = {(event.worker, event.round): event.body for event in rounds}
    assert len(signed) == 4 * 20
    for body in signed:
        assert body["signer"] != body["worker"] or (body["worker"], body["round"]) in alone
        assert body["norm"] == pytest.approx(by_place[body["worker"], body["round"]]["grad_norm"])


def test_events_have_no_gap_and_times_do_not_go_back_for_a_worker(pair: tuple[pl.Run, pl.Run]) -> None:
    for run in pair:
        events = run.events()
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_no_worker_held_the_model(pair: tuple[pl.Run, pl.Run]) -> None:
    run, _ = pair
    workers = run.workers()
    held = workers.groupby("stage")["parameters"].first()
    assert held.sum() == run.info["model_parameters"]
    assert (workers["parameters"] < run.info["model_parameters"]).all()


def test_the_audit_is_in_order_and_shares_sum_to_one(pair: tuple[pl.Run, pl.Run]) -> None:
    for run in pair:
        report = run.audit()
        assert report.ok, str(report)
        closes = run._directory.evidence.closes()
        assert len(closes) == 2
        for close in closes:
            assert sum(Fraction(*share) for share in close["shares"].values()) == 1
            assert sum(int(wei) for _, _, wei in close["amounts"]) == run.spec.emission * 10**18


def test_logs_of_libraries_stay_out_of_the_supervisors_log(pair: tuple[pl.Run, pl.Run]) -> None:
    run, _ = pair
    assert "Traceback" not in "".join(run._directory.log_tail(name, lines=1000) for name in ("supervisor", "forkserver"))
    for worker in range(4):
        assert "Traceback" not in run._directory.log_tail(f"worker-{worker}", lines=1000)
