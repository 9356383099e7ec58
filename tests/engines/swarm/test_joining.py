"""Workers join from another home over the gate: real processes, another account, deaths, a lost supervisor, a good-bye."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import pluralis_lab as pl
from pluralis_lab.engines.control import read_control
from tests.engines.swarm.conftest import assert_all_gone, small_spec


class Shell:
    """`pluralis-lab join` in somebody's shell."""

    def __init__(self, home: Path, *arguments: str, command: Sequence[str] | None = None) -> None:
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "pluralis_lab.cli", "join", *arguments],
            env={**os.environ, "PLURALIS_LAB_HOME": str(home), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for(self, begin: str, *, times: int = 1, timeout_s: float = 60) -> str:
        """Wait for the `times`-th line that begins with `begin`."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._count(begin) >= times, timeout=timeout_s)
        assert found, f"no {begin!r} in {self.lines}"
        return next(line for line in reversed(self.lines) if line.startswith(begin))

    def _count(self, begin: str) -> int:
        return sum(line.startswith(begin) for line in self.lines)

    def everything(self) -> list[psutil.Process]:
        """Return the processes of this shell's command, but for its home's chain daemon, which outlives commands."""
        mine = psutil.Process(self.process.pid)
        return [mine, *(each for each in mine.children(recursive=True) if "pluralis_lab.chain.daemon" not in each.cmdline())]


@contextmanager
def joining(home: Path, *arguments: str) -> Iterator[Shell]:
    shell = Shell(home, *arguments)
    try:
        yield shell
    finally:
        if shell.process.poll() is None:
            shell.process.kill()
        shell.process.wait()


@pytest.mark.drawn("who comes and goes", keep=1)
def test_a_joiner_is_paid_comes_back_and_leaves(home: Path, elsewhere: Path) -> None:
    run = pl.launch(small_spec(steps=3000, epoch_rounds=50), account="default")
    try:
        run.wait(round=3, timeout_s=60)
        invitation = run.invite()
        assert "127.0.0.1" in repr(invitation)
        assert invitation.secret not in (run.path / "invitations.json").read_text()
        with joining(elsewhere, str(invitation), "--stage", "1") as shell:
            assert "worker-4 comes to stage 1 for default-" in shell.wait_for("worker-4 comes")
            shell.wait_for("first micro-batch counted")
            row = next(row for row in run.info["workers"] if row["name"] == "worker-4")
            assert row["remote"]
            address = pl.Chain.embedded(home=elsewhere).account("default", create=False).address
            assert {owner["name"]: owner["address"] for owner in run.info["participants"]}[row["participant"]] == address
            assert not (run.path / "workers" / "worker-4" / "hot.key").exists(), "its key came along"
            run.kill("worker-4")
            shell.wait_for("active", times=2)
            everything = shell.everything()
            shell.process.send_signal(signal.SIGINT)
            assert "left the run" in shell.wait_for("it is over")
            assert shell.process.wait(60) == 0
            assert_all_gone(everything)
        assert next(row for row in run.info["workers"] if row["name"] == "worker-4")["left"]
        with joining(elsewhere, str(invitation)) as shell:
            shell.wait_for("worker-4 does not come back")
            assert shell.process.wait(60) == 1
            assert "as many workers have come with the invitation" in shell.lines[-1]
    finally:
        run.stop()
    assert run.audit().ok, str(run.audit())
    shares = run.contributions().set_index("worker")["share"]
    assert shares["worker-4"] > 0


@pytest.mark.deep
def test_a_joiner_comes_back_after_the_run_or_its_own_machine_was_gone(home: Path, elsewhere: Path) -> None:
    run = pl.launch(small_spec(steps=3000, epoch_rounds=50), account="default", lifetime="detached")
    try:
        run.wait(round=3, timeout_s=60)
        invitation = run.invite()
        with joining(elsewhere, str(invitation)) as shell:
            shell.wait_for("active")
            control = read_control(run._directory)
            assert control is not None
            os.kill(control["pid"], signal.SIGKILL)
            shell.wait_for("the run is out of reach")
            run.resume(lifetime="detached")
            shell.wait_for("back at the run")
            shell.wait_for("active", times=2)
            everything = shell.everything()
            shell.process.kill()  # the whole machine: its worker goes with it
            assert_all_gone(everything)
            seen = len(run.metrics())
            run.wait(round=seen + 10, timeout_s=60)
        with joining(elsewhere, str(invitation)) as shell:  # its one seat is taken: only its own can it come back to
            shell.wait_for("worker-4 comes back")
            shell.wait_for("first micro-batch counted")
    finally:
        run.stop()
    assert run.audit().ok, str(run.audit())


@pytest.mark.deep
def test_what_pl_join_has_brought_goes_with_its_process(home: Path) -> None:
    run = pl.launch(small_spec(steps=3000))
    try:
        joined = pl.join(run.invite())
        children = [psutil.Process(joined._process.pid), *psutil.Process(joined._process.pid).children(recursive=True)]
        assert joined._process.stdin is not None
        joined._process.stdin.close()  # as when this process is killed
        assert_all_gone(children)
    finally:
        run.stop()


@pytest.mark.drawn("who comes and goes", keep=1)
def test_pl_join_brings_a_worker_that_leaves_when_it_is_told_to(home: Path, tmp_path: Path) -> None:
    run = pl.launch(small_spec(steps=3000))
    try:
        run.wait(round=3, timeout_s=60)
        joined = pl.join(run.invite(stage=0))  # the same home: the founder's own account, and the corpus is here
        assert joined.is_running
        assert "worker-4 comes to stage 0 for default" in "\n".join(joined.lines)
        assert joined.leave().lines[-1] == "it is over: left the run"
        assert not joined.is_running
        text = f"path:{__file__}"  # a run that draws nothing of its workers' own takes none
        with pytest.raises(pl.PluralisError, match=r"own_data=0\.0"):
            run.attach(data=text)
        with pytest.raises(pl.PluralisError, match=r"own_data=0\.0"):
            pl.join(run.invite(), data=text)
        with pytest.raises(pl.PluralisError, match="no such invitation"):
            pl.join(
                pl.Invitation(run.id, "127.0.0.1", joined.invitation.port, joined.invitation.fingerprint, "guessed"),
                home=tmp_path,
            )
        with pytest.raises(pl.PluralisError, match="another certificate"):
            pl.join(
                pl.Invitation(run.id, "127.0.0.1", joined.invitation.port, "ab" * 32, joined.invitation.secret), home=tmp_path
            )
    finally:
        run.stop()
    with pytest.raises(pl.PluralisError, match=r"nobody answers at 127\.0\.0\.1"):
        pl.join(joined.invitation)
