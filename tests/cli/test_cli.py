"""The command line, run as a user runs it: output, errors in one line, exit status."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pluralis_lab.errors import RunSpecError
from pluralis_lab.store import RunDirectory

COMMANDS = (
    *(
        "launch",
        "simulate",
        "plan",
        "attach",
        "detach",
        "invite",
        "join",
        "runs",
        "watch",
        "stop",
        "resume",
        "delete",
        "generate",
        "evaluate",
        "audit",
        "replay",
        "tokenize",
        "pay",
        "claim",
    ),
    "doctor",
)


def cli(*arguments: str, stdin: str = "", timeout_s: float = 60, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pluralis_lab.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "140", **variables},
    )


def make_run(home: Path, **info: Any) -> RunDirectory:
    """Make a run directory as the supervisor would, with a few rounds in it."""
    from pluralis_lab.spec import RunSpec
    from pluralis_lab.store import new_run_id

    spec = RunSpec(data="stdlib", stages=2, replicas=1, steps=4, epoch_rounds=2)
    run_id = new_run_id(spec.hash, "0x" + "11" * 20)
    workers = [
        {"name": f"worker-{number}", "stage": number, "replica": 0, "participant": "lab-a", "key": "0x" + f"{number:040x}"}
        for number in range(2)
    ]
    founder = {"name": "lab-a", "address": "0x" + "11" * 20}
    facts = {
        "id": run_id,
        "engine": "swarm",
        "created": time.time(),
        "spec_hash": spec.hash,
        "founder": founder["address"],
        "lifetime": "detached",
        "state": "stopped",
        "pid": None,
        "participants": [founder],
        "workers": workers,
        "attesters": [],
        "chain": {"kind": "none"},
        "corpus": {"name": "stdlib", "unigram_nats": 3.2},
        "stage_parameters": [10, 12],
        "model_parameters": 22,
        **info,
    }
    run = RunDirectory.create(home, spec, facts)
    writer = run.writer()
    writer.append("run.state", body={"state": "running", "reason": ""})
    for number in range(2):
        state = {"state": "active", "stage": number, "replica": 0, "participant": "lab-a"}
        writer.append("worker.state", worker=f"worker-{number}", round=0, body=state)
    for number in range(4):
        round_facts = {"loss": 5.0 - number, "tokens": 100, "seconds": 0.5, "tokens_per_s": 200.0}
        writer.append("round", round=number, body=round_facts)
    writer.append("validation", round=4, body={"loss": 2.25, "tokens": 100})
    writer.append("run.state", body={"state": "stopped", "reason": ""})
    writer.close()
    return run


def compute_s_of_children() -> float:
    """Seconds of a processor that processes took which have ended: as many on a busy machine as on a free one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_names_every_command_and_computes_for_half_a_second_at_most() -> None:
    least, text = float("inf"), ""
    for _ in range(5):
        before = compute_s_of_children()
        text = cli("--help").stdout
        least = min(least, compute_s_of_children() - before)
    assert all(f" {command} " in text for command in COMMANDS)
    assert 0 < least < 0.5


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).parent / "pluralis-lab"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pluralis-lab 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    done = cli(command, "--help")
    assert done.returncode == 0
    assert f"Usage: pluralis-lab {command}" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["stop"],
        ["launch", "--stages", "many"],
        ["pay", "ab", "--ether", "much"],
        ["pay", "ab", "--ether", "-1"],
        ["pay", "ab"],
    ],
)
def test_wrong_usage_is_status_2(lab_home: Path, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["watch", "stop", "resume", "delete", "evaluate", "audit", "tokenize", "claim"])
def test_an_unknown_run_is_one_line_and_status_1(lab_home: Path, command: str) -> None:
    done = cli(command, "abcd")
    assert done.returncode == 1
    assert done.stderr.startswith("RunError: no run 'abcd'")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_errors_are_red_on_a_terminal(lab_home: Path) -> None:
    done = cli("stop", "abcd", FORCE_COLOR="1", NO_COLOR="", TERM="xterm")
    assert done.stderr.startswith("\x1b[31m")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "imagenet"], 'data="imagenet" is not a known source'),
        (["--stages", "99"], "stages=99"),
        (["--set", "steps"], "has no value"),
        (["--set", "steps=many"], "is not JSON"),
        (["--set", "colour=1"], "colour"),
        (["missing.json"], "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["launch", "simulate", "plan"])
def test_a_spec_that_cannot_work_is_refused_before_anything_starts(
    lab_home: Path, command: str, arguments: list[str], message: str
) -> None:
    done = cli(command, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("RunSpecError: ")
    assert "Traceback" not in done.stderr
    assert not (lab_home / "runs").exists()


def test_a_plan_of_what_nobody_here_has_is_shown_or_json(lab_home: Path) -> None:
    from dataclasses import asdict

    import pluralis_lab as pl

    spec = pl.RunSpec(
        model=pl.GPT(n_layer=8, n_head=8, d_model=1024, context=512), stages=4, replicas=2, boundary=pl.Subspace(64)
    )
    said = ["--rate", "80mbit", "--latency-ms", "50", "--uplink", "40mbit", "--device-flops", "50e12", "--vocab", "50257"]
    shown = cli("plan", "-", *said, stdin=spec.to_json().decode())
    assert shown.returncode == 0, shown.stderr
    assert "tokens a second" in shown.stdout
    assert "an uplink of 40 Mbit/s for each worker" in shown.stdout
    told = json.loads(cli("plan", "-", *said, "--json", stdin=spec.to_json().decode()).stdout)
    planned = pl.plan(spec, links=pl.Links("80mbit", latency_ms=50, uplink="40mbit"), device_flops=50e12, vocab=50_257)
    assert told == json.loads(json.dumps(asdict(planned)))
    assert not (lab_home / "runs").exists()


def test_a_broken_spec_on_stdin_is_refused(lab_home: Path) -> None:
    done = cli("launch", "-", stdin="{not json")
    assert (done.returncode, done.stderr.startswith("RunSpecError: the spec is not JSON")) == (1, True)


def test_options_are_laid_over_the_file(tmp_path: Path) -> None:
    from pluralis_lab.cli import build_spec

    file = tmp_path / "spec.json"
    file.write_text(json.dumps({"data": "stdlib", "stages": 2, "optimizer": {"kind": "adamw", "lr": 0.1, "beta1": 0.5}}))
    spec = build_spec(
        file,
        {"stages": 3, "steps": 7, "seed": None},
        rank=8,
        lr=0.01,
        fields=["emission=500", 'model={"kind":"gpt","n_layer":3}'],
    )
    assert (spec.stages, spec.steps, spec.seed, spec.emission) == (3, 7, 0, 500)
    assert (spec.optimizer.lr, spec.optimizer.beta1) == (0.01, 0.5)
    assert spec.boundary is not None
    assert spec.boundary.model_dump()["rank"] == 8
    dense = build_spec(file, {}, rank=0, lr=None, fields=None)
    assert dense.boundary is not None
    assert dense.boundary.kind == "dense"
    with pytest.raises(RunSpecError, match="cannot be read"):
        build_spec(tmp_path / "nothing.json", {}, None, None, None)


def test_runs_lists_the_newest_first(lab_home: Path) -> None:
    assert "no runs yet" in cli("runs").stdout
    assert json.loads(cli("runs", "--json").stdout) == []
    old, new = make_run(lab_home, created=1.0), make_run(lab_home, created=2.0)
    rows = json.loads(cli("runs", "--json").stdout)
    assert [row["id"] for row in rows] == [new.id, old.id]
    shown = {name: rows[0][name] for name in ("state", "engine", "data", "workers", "rounds", "steps", "loss")}
    assert shown == {"state": "stopped", "engine": "swarm", "data": "stdlib", "workers": 2, "rounds": 4, "steps": 4, "loss": 2.0}
    table = cli("runs").stdout
    assert new.id[:8] in table
    assert "4 of 4" in table


def test_a_run_whose_supervisor_was_killed_is_shown_as_failed_with_the_remedy(lab_home: Path) -> None:
    run = make_run(lab_home, state="running")
    writer = run.writer()
    writer.append("run.state", body={"state": "running", "reason": ""})
    writer.close()
    supervise = (
        "import os, sys, signal; from pluralis_lab.engines.control import write_control\n"
        "from pluralis_lab.store import RunDirectory\n"
        "write_control(RunDirectory(sys.argv[1]), {'socket': None, 'token': 'x', 'sockets': {}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", supervise, str(run.path)], check=False)
    done = cli("watch", run.id)
    assert done.returncode == 1
    assert "run failed: its supervisor was killed" in done.stdout
    assert json.loads(cli("runs", "--json").stdout)[0]["state"] == "failed"


def test_a_run_is_deleted_when_that_is_meant(lab_home: Path) -> None:
    kept, gone = make_run(lab_home), make_run(lab_home)
    assert cli("delete", gone.id[:8], stdin="n\n").returncode == 1
    assert gone.path.exists()
    assert f"deleted {gone.id[:8]}" in cli("delete", gone.id[:8], "--yes").stdout
    assert [path.name for path in (lab_home / "runs").iterdir()] == [kept.id]


def test_errors_go_by_their_public_names(lab_home: Path) -> None:
    done = cli("launch", "--account", "../elsewhere")
    assert (done.returncode, done.stderr.splitlines()[-1][:24]) == (1, "ChainError: account name")


def test_watching_a_finished_run_in_a_pipe_prints_its_story_and_ends(lab_home: Path) -> None:
    run = make_run(lab_home)
    done = cli("watch", run.id[:8])
    assert (done.returncode, done.stderr) == (0, "")
    lines = ["run running", "worker-0 active", "worker-1 active", "round 4: validation loss 2.250 nats", "run stopped"]
    assert done.stdout.splitlines() == lines
    assert cli("watch").stdout == done.stdout


def test_watching_a_failed_run_is_status_1(lab_home: Path) -> None:
    run = make_run(lab_home)
    writer = run.writer()
    writer.append("error", worker="worker-1", body={"message": "out of memory [/b]", "log_tail": ""})
    writer.append("run.state", body={"state": "failed", "reason": "worker-1 failed"})
    writer.close()
    done = cli("watch", run.id[:8])
    assert done.returncode == 1
    assert "error in worker-1: out of memory [/b]" in done.stdout


def test_ctrl_c_ends_the_watching_and_not_the_run(lab_home: Path) -> None:
    run = make_run(lab_home, state="running")
    writer = run.writer()
    writer.append("run.state", body={"state": "running", "reason": "resumed"})
    writer.close()
    command = [sys.executable, "-u", "-m", "pluralis_lab.cli", "watch", run.id]
    # A shell's background jobs inherit SIGINT as ignored; a user's terminal does not do that.
    watching = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert watching.stdout is not None
        lines = iter(watching.stdout.readline, "")
        assert any("resumed" in line for line in lines)
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate(timeout=30)
    finally:
        watching.kill()
        watching.wait()
    assert "still going; watch it again:  pluralis-lab watch" in rest
    assert (watching.returncode, errors) == (0, "")
    assert json.loads(cli("runs", "--json").stdout)[0]["state"] == "running"


def test_a_run_whose_starter_died_before_its_process_began_is_failed(lab_home: Path) -> None:
    run = make_run(lab_home, state="starting")
    assert json.loads(cli("runs", "--json").stdout)[0]["state"] == "starting", "it may be starting right now"
    an_hour_ago = time.time() - 3600
    os.utime(run.path / "run.json", (an_hour_ago, an_hour_ago))
    assert json.loads(cli("runs", "--json").stdout)[0]["state"] == "failed"
    assert "run.resume() starts it" in run.info["reason"]
