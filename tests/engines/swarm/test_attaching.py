"""Workers are attached to a run that is live: real processes, real keys, receipts, deaths, and a full stop."""

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab import attaching
from pluralis_lab.cli import main
from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines import processes
from pluralis_lab.engines.signers import SeedSigner, signer_for
from tests.engines.swarm.conftest import simulated_losses, small_spec


def authorised(launched: pl.Run, worker: str, owner: str, **changes: str) -> dict[str, Any]:
    """Return `owner`'s authorisation of a new key for `worker`, with some fields changed after it was signed."""
    chain, key = launched.info["chain"], HotKey.generate()
    signer = signer_for(chain, seed=0, home=launched.path.parent.parent)
    typed = authorisation_typed_data(launched.id, worker, key.address, chain["chain_id"], chain["ledger"])
    line = {"run": launched.id, "worker": worker, "participant": owner, "address": signer.address(owner), "key": key.address}
    return {**line, "signature": signer.sign(owner, typed), **changes}


def counted(run: pl.Run) -> dict[tuple[int, int], int]:
    """Return the tokens that each (stage, round) counted."""
    stages = {worker["name"]: worker["stage"] for worker in run.info["workers"]}
    found: Counter[tuple[int, int]] = Counter()
    for event in run.events("worker.round"):
        assert event.worker is not None
        assert event.round is not None
        found[stages[event.worker], event.round] += event.body["tokens"]
    return dict(found)


@pytest.mark.drawn("who comes and goes", keep=1)
def test_attached_workers_share_the_work_are_paid_and_come_back_when_killed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pl.launch(small_spec(steps=120, epoch_rounds=20), account="lab-a")
    first = run.attach(account="lab-b")  # it need not have begun
    assert (first.name, first.replica, first.participant) == ("worker-4", 2, "lab-b")
    left = processes.command(run._directory, "reserve", stage=0)  # whoever asked has gone away: the seat stays empty
    assert left["worker"] == "worker-5"
    capsys.readouterr()  # a cold chain's daemon may have been waited for, aloud
    with suppress(SystemExit):
        main(["attach", run.id[:12], "--stage", "0", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["stage"], told["participant"]) == ("worker-6", 0, "lab-a")
    enrolled = {event.worker: event.body for event in run.events("enrolled")}
    assert {worker: (body["stage"], body["participant"]) for worker, body in enrolled.items()} == {
        "worker-4": (first.stage, "lab-b"),
        "worker-6": (0, "lab-a"),
    }
    addresses = {owner["name"]: owner["address"] for owner in run.info["participants"]}
    assert addresses["lab-b"] == enrolled["worker-4"]["address"]
    run.wait(round=40, timeout_s=90)
    run.kill("worker-4")
    run.wait(timeout_s=120)
    try:
        workers = run.workers().set_index("worker")
        assert list(workers.index) == ["worker-0", "worker-1", "worker-6", "worker-2", "worker-3", "worker-4"]
        assert set(workers["state"]) == {"serving"}
        assert (workers.loc["worker-4", "incarnation"], workers.loc["worker-4", "deaths"]) == (1, 1)
        whole = run.spec.num_micro_batches * run.spec.tokens_per_micro_batch
        found = counted(run)
        assert all(tokens <= whole for tokens in found.values())
        # Nobody hears from a killed worker what it did in its last round.
        assert sum(tokens == whole for tokens in found.values()) >= 2 * 120 - 1
        assert run.audit().ok, str(run.audit())
        shares = run.contributions().set_index("worker")["share"]
        assert min(shares["worker-4"], shares["worker-6"]) > 0.02
        assert [participant["name"] for participant in run.info["participants"]] == ["lab-a", "lab-b"]
        assert run.metrics()["loss"].dropna().tolist() == pytest.approx(simulated_losses(run), rel=1e-3)
        with pytest.raises(pl.PluralisError, match="has trained all its rounds"):
            run.attach()
        token = run.tokenize()
        assert token.shares().set_index("name").loc["lab-b", "shares_wei"] > 0
    finally:
        run.stop()


@pytest.mark.drawn("who comes and goes", keep=1)
def test_an_attached_worker_stays_with_its_run_after_a_full_stop(home: Path) -> None:
    run = pl.launch(small_spec(steps=160, schedule="async", epoch_rounds=40), account="lab-a")
    run.wait(round=5, timeout_s=60)
    worker = run.attach(stage=0)
    while run.workers().set_index("worker")["state"].get(worker.name) != "active":
        assert run.state == "running", "the run was over before the worker took part"
        run.wait(round=len(run.metrics()) + 1, timeout_s=60)
    run.wait(round=len(run.metrics()) + 15, timeout_s=60)  # a checkpoint is made with it
    run.stop()
    run.resume().wait(timeout_s=120)
    try:
        states = run.workers().set_index("worker")
        assert states.loc[worker.name, "state"] == "serving"
        after = [event for event in run.events("worker.round") if event.worker == worker.name and event.round == 159]
        assert after
        assert after[-1].body["tokens"] > 0
        assert {event.round for event in run.events("round")} == set(range(160))
        assert run.audit().ok, str(run.audit())
    finally:
        run.stop()
    with pytest.raises(pl.PluralisError, match="is not running"):
        run.attach()


def test_what_is_wrong_is_named_and_changes_nothing(home: Path) -> None:
    run = pl.launch(small_spec(steps=4000), account="lab-a")
    try:
        run.wait(round=2, timeout_s=60)
        before = run.info
        for arguments, said in (
            ({"stage": 2}, "stage=2; the run has the stages 0 to 1"),
            ({"stage": True}, "stage=True"),
            ({"device": "gpu"}, "device='gpu'; use 'cpu', or 'cuda:0'"),
            ({"device": "cuda:93"}, "CUDA devices on this machine; use 'cpu'"),
        ):
            with pytest.raises(pl.PluralisError, match=said):
                run.attach(**arguments)
        with pytest.raises(pl.PluralisError, match="account name"):
            run.attach(stage=1, account="no/body")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attaching, "signer_for", lambda *where, **how: SeedSigner(1))
            with pytest.raises(pl.PluralisError, match="knows another account as 'lab-a'"):
                run.attach(stage=1)
        seat = processes.command(run._directory, "reserve", stage=1)["worker"]
        assert seat == "worker-4", "a seat that nobody took is given to the next"
        assert (run.path / "workers" / seat / "hot.key").exists(), "the key of whoever was refused"
        other = HotKey.generate().address
        for line, said in (
            (None, "is malformed"),
            (authorised(run, "worker-99", "lab-a"), "no seat is reserved"),
            (authorised(run, "worker-0", "lab-a"), "no seat is reserved"),
            (authorised(run, seat, "lab-a", key=other), "it is signed by"),
            (authorised(run, seat, "lab-b", participant="lab-a"), "knows another account as 'lab-a'"),
            (authorised(run, seat, "lab-a", run="ab" * 32), "it is for run"),
        ):
            with pytest.raises(pl.PluralisError, match=said):
                processes.command(run._directory, "enrol", authorisation=line)
        processes.command(run._directory, "release", worker=seat)
        reserved = [processes.command(run._directory, "reserve", stage=1)["worker"] for _ in range(14)]
        with pytest.raises(pl.PluralisError, match="stage 1 has 16 workers already; choose another stage"):
            run.attach(stage=1)
        assert run.info["workers"] == before["workers"]
        assert run.info["participants"] == before["participants"]
        assert len(run._directory.evidence.authorisations()) == 4
        assert not run.events("enrolled")
        assert not run.events("error")
        seen = len(run.metrics())
        run.wait(round=seen + 5, timeout_s=60)
        for name in reserved:
            processes.command(run._directory, "release", worker=name)
        assert run.attach(stage=1).name == "worker-4"
    finally:
        run.stop()
