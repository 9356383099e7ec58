"""SIGKILL of a worker, of the supervisor, of the process that started the run: what is left, and what goes on."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.engines import processes
from pluralis_lab.engines.resuming import resume_version
from pluralis_lab.errors import RunError
from pluralis_lab.store.checkpoints import WRITTEN_AT_ONCE_BYTES, CheckpointFolder, common_versions
from tests.engines.swarm.conftest import (
    PEOPLE,
    assert_all_gone,
    descendants_of,
    folders_of_sockets,
    private_folder,
    simulated_losses,
    small_spec,
    wait_for,
)


def state_of(run: pl.Run, worker: str) -> str:
    """Return what was told of the worker last."""
    return [event.body["state"] for event in run.events("worker.state") if event.worker == worker][-1]


def test_a_killed_worker_does_not_stall_its_stage(home: Path) -> None:
    run = pl.launch(small_spec(steps=100), account="lab-a", participants=PEOPLE)
    run.wait(round=15, timeout_s=60)
    run.kill("worker-3")
    run.wait(timeout_s=90)
    wait_for(lambda: state_of(run, "worker-3") == "serving")  # which may come only after the last round
    events = run.events()
    death = next(e for e in events if e.kind == "worker.state" and e.body["state"] == "dead")
    assert death.worker == "worker-3"
    step = next(e for e in events if e.kind == "worker.round" and e.worker == "worker-2" and e.time > death.time)
    assert step.time - death.time < 15
    rounds = [e.round for e in events if e.kind == "round"]
    assert rounds == list(range(100))
    counted: dict[tuple[int, int], int] = {}
    for e in events:
        if e.kind == "worker.round":
            stage = int(e.worker.removeprefix("worker-")) // 2
            counted[stage, e.round] = counted.get((stage, e.round), 0) + e.body["tokens"]
    tokens = run.spec.num_micro_batches * run.spec.tokens_per_micro_batch
    # A worker that is killed cannot report the round it died in; every other round counts each micro-batch exactly once.
    whole = [place for place, count in counted.items() if count == tokens]
    assert len(whole) >= 2 * 100 - 1
    assert all(count <= tokens for count in counted.values())
    report = run.audit()
    assert report.ok, str(report)
    receipts = [
        line["body"]
        for lines in run._directory.evidence.statements_by_epoch().values()
        for line in lines
        if line["body"]["worker"] == "worker-3"
    ]
    assert any(body["kind"] == "backward" and body["round"] <= step.round for body in receipts)
    back = run.workers().set_index("worker").loc["worker-3"]
    assert (back["state"], back["incarnation"], back["deaths"]) == ("serving", 1, 1)
    assert run.metrics()["loss"].dropna().tolist() == pytest.approx(simulated_losses(run), rel=1e-3)
    run.stop()


@pytest.mark.drawn("what dies", keep=1)
def test_a_killed_supervisor_takes_its_workers_along_and_the_run_resumes(home: Path) -> None:
    run = pl.launch(small_spec(steps=80), account="lab-a", participants=PEOPLE)
    run.wait(round=25, timeout_s=60)
    family, folder = descendants_of(run), private_folder(run)
    assert len(list(folder.glob("worker-*"))) == 2 * 4
    assert folders_of_sockets(family) == {folder}
    os.kill(run.info["pid"], signal.SIGKILL)
    assert_all_gone(family)
    assert run.state == "failed"
    assert "resume" in run.info["reason"]
    assert not folder.exists()
    with pytest.raises(RunError, match="resume"):
        run.wait(timeout_s=5)
    done_before = run.metrics()["loss"].dropna()
    folders = [[CheckpointFolder(run._directory.worker_folder(f"worker-{2 * stage + n}")) for n in (0, 1)] for stage in (0, 1)]
    # Not always the newest one: the reports of its last rounds may have died on their way to the supervisor.
    last_checkpoint = resume_version(run._directory)
    assert last_checkpoint in common_versions(folders)
    assert 10 <= last_checkpoint <= len(done_before)

    reopened = pl.open_run(run.id[:12])
    reopened.resume().wait(timeout_s=90)
    assert reopened.state == "serving"
    events = reopened.events("round", "worker.state")
    first_after = next(e for e in events if e.kind == "worker.state" and e.body["state"] == "active" and e.round > 0)
    assert first_after.round == last_checkpoint
    losses = reopened.metrics()["loss"].dropna()
    assert losses.tolist() == pytest.approx(simulated_losses(run), rel=1e-3)
    # Rounds after the checkpoint are there twice, unless the kill came before the first of them was recorded.
    assert losses[: len(done_before)].tolist() == pytest.approx(done_before.tolist(), rel=1e-4)
    report = reopened.audit()
    assert report.ok, str(report)
    reopened.stop()


@pytest.mark.drawn("what dies", keep=1)
def test_a_stages_checkpoints_are_the_same_files_at_two_workers_and_one_of_them_is_enough(home: Path) -> None:
    run = pl.launch(small_spec(steps=40, epoch_rounds=20), account="lab-a")
    run.wait(round=25, timeout_s=60)
    run.stop()
    version = resume_version(run._directory)
    assert version >= 20
    for stage in (0, 1):
        held: dict[int, list[str]] = {}
        for folder in (run._directory.worker_folder(f"worker-{2 * stage + n}") for n in (0, 1)):
            for file in folder.glob("checkpoint-*"):
                _, number, digest = file.stem.split("-")
                assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
                held.setdefault(int(number), []).append(digest)
        # A stop can come while one has saved the latest and the other has not; the one before is there twice.
        twice = {number: digests for number, digests in held.items() if len(digests) == 2}
        assert max(twice) >= version - run.spec.checkpoint_every
        assert all(one == other for one, other in twice.values())
    for file in run._directory.worker_folder("worker-1").glob("checkpoint-*"):
        file.unlink()
    for file in run._directory.worker_folder("worker-2").glob("checkpoint-*"):
        file.write_bytes(b"\0" * file.stat().st_size)
    version = resume_version(run._directory)
    assert version >= 20
    run.resume().wait(timeout_s=90)
    assert run.info["started_from"] == version
    assert run.metrics()["loss"].dropna().tolist() == pytest.approx(simulated_losses(run), rel=1e-3)
    run.stop()
    assert run.audit().ok


def test_a_launch_cleans_up_after_a_killed_supervisor_and_is_stopped_while_its_fork_server_starts(home: Path) -> None:
    small = small_spec(steps=100_000, stages=1, replicas=2, boundary=pl.Dense())
    killed = pl.launch(small, account="lab-a", participants=PEOPLE)
    killed.wait(round=1, timeout_s=60)
    family, folder = descendants_of(killed), private_folder(killed)
    os.kill(family[0].pid, signal.SIGKILL)
    assert_all_gone(family)
    damaged = home / "runs" / ("ff" * 32)
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    try:
        assert folder.exists()
        run = pl.launch(small, account="lab-a", participants=PEOPLE)
        assert not folder.exists()
        assert json.loads((killed.path / "run.json").read_text())["state"] == "failed"
    finally:
        shutil.rmtree(damaged)
    family = descendants_of(run)
    begin = time.monotonic()
    run.stop()  # while its fork server starts
    assert time.monotonic() - begin < 15, "it waits for what is not needed any more"
    assert_all_gone(family)
    assert run.state == "stopped"


def test_a_killed_fork_server_fails_the_run_with_the_reason(home: Path) -> None:
    run = pl.launch(small_spec(steps=100_000), account="lab-a", participants=PEOPLE)
    run.wait(round=1, timeout_s=60)
    family, folder = descendants_of(run), private_folder(run)
    server = next(process for process in family if "pluralis_lab.engines.swarm.forkserver" in process.cmdline())
    server.kill()
    with pytest.raises(RunError, match=r"the fork server ended and took the workers along.*run.resume"):
        run.wait(timeout_s=30)
    assert_all_gone(family)
    assert run.state == "failed"
    assert not folder.exists()


STARTER = """
import os, sys, time
import pluralis_lab as pl
from tests.engines.swarm.conftest import small_spec
run = pl.launch(small_spec(steps=100_000), account="lab-a", lifetime=sys.argv[1])
run.wait(round=1)
print(run.id, flush=True)
if sys.argv[2] == "end":
    sys.exit()
time.sleep(1000)
"""


def start(lifetime: str, then: str) -> tuple[subprocess.Popen[str], pl.Run]:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, lifetime, then],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        start_new_session=True,
        # A shell's background jobs, as a CI may be one, inherit SIGINT as ignored; a user's terminal does not do that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if len(line.strip()) == 64:
            return process, pl.open_run(line.strip())
    raise AssertionError(process.communicate())


@pytest.mark.deep  # tests/run/test_kernels.py shows the same of a Jupyter kernel that is killed
def test_a_run_of_lifetime_kernel_ends_when_its_starter_is_killed(home: Path) -> None:
    process, run = start("kernel", "wait")
    family = descendants_of(run)
    process.kill()
    process.communicate()
    assert_all_gone(family)
    assert run.state == "stopped"
    assert run.info["reason"] == "its kernel ended"


def test_a_script_that_ends_without_waiting_says_what_it_ended(home: Path) -> None:
    process, run = start("kernel", "end")
    _, errors = process.communicate(timeout=30)
    assert f"run {run.id[:8]} ends with this process" in errors
    assert run.state == "stopped"


def test_an_interrupt_of_the_starters_process_group_ends_the_starter_and_does_not_reach_the_detached_run(home: Path) -> None:
    process, run = start("detached", "wait")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    done = run._directory.last("round").round
    run.wait(round=done + 3, timeout_s=60)
    assert run.state == "running"
    assert not run.events("error")
    assert all(e.body["state"] != "dead" for e in run.events("worker.state"))
    run.stop()


def test_a_workers_failure_is_raised_where_one_waits_with_its_name_and_log(home: Path) -> None:
    """Where nobody else has its stage, so that the run cannot go on."""
    run = pl.launch(small_spec(steps=100_000, replicas=1), account="lab-a", participants=PEOPLE)
    family = descendants_of(run)
    run.wait(round=2, timeout_s=60)
    # The worker's own key becomes readable by others; the next incarnation refuses to use it.
    os.chmod(run.path / "workers" / "worker-1" / "hot.key", 0o644)
    run.kill("worker-1")
    with pytest.raises(RunError) as caught:
        run.wait(timeout_s=60)
    assert "worker-1 failed" in str(caught.value)
    assert "others can read it" in str(caught.value)
    assert_all_gone(family)
    assert run.state == "failed"


@pytest.mark.timeout(300)
def test_a_worker_that_fails_again_and_again_is_given_up_while_another_has_its_stage(home: Path) -> None:
    run = pl.launch(small_spec(steps=100_000), account="lab-a", participants=PEOPLE)
    run.wait(round=12, timeout_s=60)
    key = run.path / "workers" / "worker-2" / "hot.key"
    os.chmod(key, 0o644)
    run.kill("worker-2")
    wait_for(lambda: any("6 times in a row" in event.body["message"] for event in run.events("error")), timeout_s=90)
    (*tries, last) = run.events("error")
    assert len(tries) == 4, "the first life was killed, the others failed by themselves"
    assert {event.worker for event in tries} == {"worker-2"}
    assert all("worker-2 failed (exit status 1)" in event.body["message"] for event in tries)
    assert "others can read it" in last.body["log_tail"]
    done = run._directory.last("round").round
    run.wait(round=done + 3, timeout_s=60)
    assert run.state == "running"
    assert state_of(run, "worker-2") == "dead"

    # What was wrong is still wrong when the run is resumed: it goes on all the same, and takes the worker in when it is mended.
    run.stop().resume()
    wait_for(lambda: run.state == "running")
    assert state_of(run, "worker-2") != "active"
    os.chmod(key, 0o600)
    run.stop().resume()
    wait_for(lambda: run.state == "running" and state_of(run, "worker-2") == "active")
    run.stop()


def test_a_large_checkpoint_is_written_beside_the_training(home: Path) -> None:
    """Larger than `WRITTEN_AT_ONCE_BYTES`: as a small one, it is there after the run, and the run resumes from it."""
    model = pl.GPT(n_layer=2, n_head=2, d_model=128, context=16)
    run = pl.launch(small_spec(model=model, steps=8, checkpoint_every=4, epoch_rounds=4, eval_every=0), account="lab-a")
    run.wait(timeout_s=60).stop()
    assert resume_version(run._directory) == 8
    stored = {(event.worker, event.round): event.body["size_bytes"] for event in run.events("checkpoint")}
    assert min(stored.values()) > WRITTEN_AT_ONCE_BYTES
    assert stored.keys() == {(f"worker-{n}", round_) for n in range(4) for round_ in (4, 8)}
    for (worker, round_), size in stored.items():
        assert len(CheckpointFolder(run._directory.worker_folder(worker)).load(round_)[0]) == size


def test_neither_a_second_supervisor_nor_commands_without_the_token_change_anything(home: Path) -> None:
    import socket

    from pluralis_lab.engines.swarm.frames import json_frame

    run = pl.launch(small_spec(steps=100_000), account="lab-a")
    run.wait(round=1, timeout_s=60)
    written = (run.path / "control.json").read_bytes()
    command = [sys.executable, "-m", "pluralis_lab.engines.swarm.supervisor_process"]
    words = json.dumps({"run": str(run.path), "version": 0, "granted": {}})
    second = subprocess.run(command, input=words + "\n", capture_output=True, text=True, timeout=60)
    assert second.returncode != 0
    assert "is running already" in second.stderr
    with pytest.raises(RunError, match="running already"):
        processes.start_supervisor(run._directory, version=0)
    with pytest.raises(RunError, match="running already"):
        run.resume()
    assert (run.path / "control.json").read_bytes() == written
    control = json.loads((run.path / "control.json").read_text())
    assert (run.path / "control.json").stat().st_mode & 0o077 == 0
    assert os.stat(control["socket"]).st_mode & 0o077 == 0
    wrong_token, no_token = json_frame({"op": "stop", "token": "0" * 32}), json_frame({"op": "stop"})
    for garbage in (wrong_token, no_token, b"\xff" * 64, json_frame({"a": 1})):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(control["socket"])
            connection.sendall(garbage)
            assert connection.recv(100) == b""
    done = run._directory.last("round").round
    run.wait(round=done + 3, timeout_s=30)
    numbers = [event.seq for event in run.events()]  # read once: the run goes on
    assert numbers == list(range(1, len(numbers) + 1))
    assert run.state == "running"
    with pytest.raises(RunError, match="no worker 'worker-9'"):
        run.kill("worker-9")
    assert psutil.pid_exists(control["pid"])
    begin = time.monotonic()
    run.stop()
    assert time.monotonic() - begin < 10
