"""A record that cannot be written any more: the run fails, says why, leaves no process, and goes on when there is room again."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pluralis_lab as pl
from pluralis_lab.engines.control import read_control
from pluralis_lab.errors import RunError, StoreError
from pluralis_lab.store import Event
from tests.engines.swarm.conftest import PEOPLE, assert_all_gone, descendants_of, living, private_folder, small_spec

STEPS = 50
TIMEOUT_S = 120.0
DISK_BYTES = 64 << 20
TOLD = r"(the record could not be kept|an epoch could not be closed): .*the disk full"
FOUND = r"its supervisor was killed, or found the disk full; run\.resume\(\) goes on from the last checkpoint"

pytestmark = pytest.mark.timeout(400)


def check_a_full_disk(
    fill: Callable[[pl.Run], None], make_room: Callable[[], None], reason: str, *, is_full_for_us: bool = False
) -> None:
    """Run until some rounds are recorded, `fill` the disk, and check what is left, what it says, and that it goes on."""
    run = pl.launch(small_spec(steps=STEPS), account="lab-a", participants=PEOPLE)
    run.wait(round=15, timeout_s=TIMEOUT_S)
    family, folder, recorded = descendants_of(run), private_folder(run), run.events()
    fill(run)
    assert_all_gone(family)
    assert not folder.exists()
    assert_whole(run, recorded)
    if is_full_for_us:
        with pytest.raises(StoreError, match="make room"):
            run.wait(timeout_s=5)
        assert pl.runs().index.tolist() == [run.id[:8]]
    make_room()
    with pytest.raises(RunError, match=reason):
        run.wait(timeout_s=5)
    reopened = pl.open_run(run.id[:12])
    assert reopened.state == "failed"
    assert_whole(reopened, recorded)
    assert not (run.path / "control.json").exists()
    assert_it_goes_on(reopened, recorded)


def assert_whole(run: pl.Run, recorded: list[Event]) -> None:
    """Check that the record still begins with `recorded`, and has no gap."""
    events = run.events()
    assert events[: len(recorded)] == recorded
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def assert_it_goes_on(run: pl.Run, recorded: list[Event]) -> None:
    """Resume `run` and check that it goes on from a checkpoint, and ends with every round and every epoch."""
    last_seq = run._directory.last_seq()
    run.resume().wait(timeout_s=TIMEOUT_S)
    assert run.state == "serving"
    assert_whole(run, recorded)
    active = [event.round for event in run.events("worker.state") if event.seq > last_seq and event.body["state"] == "active"]
    assert active[0] in range(10, STEPS, 10)
    assert run.metrics()["loss"].dropna().index.tolist() == list(range(STEPS))
    epochs = list(range(run.spec.num_epochs))  # also one whose close was the last that the disk took
    assert [close["epoch"] for close in run._directory.evidence.closes()] == epochs
    assert sorted(event.body["epoch"] for event in run.events("epoch")) == epochs
    report = run.audit()
    assert report.ok, str(report)
    run.stop()


@pytest.mark.drawn("what dies", keep=1)
@pytest.mark.parametrize(
    ("room_bytes", "reason"),
    [
        pytest.param(16_384, TOLD, id="room for run.json alone"),
        # What a really full disk does to it, below, where that can be had.
        pytest.param(1, FOUND, id="no room at all", marks=pytest.mark.deep),
    ],
)
def test_a_record_that_may_not_grow_fails_the_run_and_it_goes_on_later(home: Path, room_bytes: int, reason: str) -> None:
    def limit(run: pl.Run) -> None:
        """Forbid the supervisor files above `room_bytes`: what an ordinary user can do to it that is like a full disk."""
        control = read_control(run._directory)
        assert control is not None
        _, hard = resource.prlimit(control["pid"], resource.RLIMIT_FSIZE)
        resource.prlimit(control["pid"], resource.RLIMIT_FSIZE, (room_bytes, hard))

    check_a_full_disk(limit, lambda: None, reason)


def check_on_a_tiny_disk(mount_point: str) -> None:
    """Do the same where the disk is really full (ENOSPC), for workers and chain too. In a mount namespace: see the test."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", mount_point]
    subprocess.run(command, check=True)
    filler = Path(mount_point) / "filler"

    def fill_once() -> None:
        with open(filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def fill(run: pl.Run) -> None:
        """Write until the disk has no page left, again while the run's processes live and after: what they give back is taken."""
        family, deadline = descendants_of(run), time.monotonic() + 60
        fill_once()
        while living(family, within_s=0.02) and time.monotonic() < deadline:
            fill_once()
        fill_once()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLURALIS_LAB_HOME", mount_point)
        patch.setenv("PLURALIS_LAB_HEADLESS", "1")
        try:
            check_a_full_disk(fill, filler.unlink, FOUND, is_full_for_us=True)
        finally:
            pl.Chain.embedded(home=mount_point).stop()


@pytest.mark.drawn("what dies", keep=1)
def test_on_a_full_disk_the_run_fails_and_goes_on_when_there_is_room(require_system: Callable[[str, bool, str], None]) -> None:
    # As root of a user namespace of its own anybody may mount; the mount ends with the namespace.
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    can_mount = shutil.which("unshare") is not None
    if can_mount:
        tried = subprocess.run([*namespace, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, timeout=30)
        can_mount = tried.returncode == 0
    require_system("a mount namespace", can_mount, "apt-get install util-linux, and allow user namespaces")
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as mount_point:
        code = f"from tests.engines.swarm.test_full_disk import check_on_a_tiny_disk as check; check({mount_point!r})"
        root = Path(__file__).parents[3]
        done = subprocess.run(
            [*namespace, sys.executable, "-c", code], cwd=root, env=dict(os.environ), capture_output=True, text=True, timeout=380
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert os.listdir(mount_point) == []


def test_a_worker_that_cannot_record_what_happens_fails_and_says_so_and_no_peer_is_blamed(home: Path) -> None:
    run = pl.launch(small_spec(steps=100), account="lab-a", recorded=True)
    run.wait(round=5, timeout_s=TIMEOUT_S)
    pid = int(run.workers().set_index("worker")["pid"]["worker-1"])
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    size_bytes = (run.path / "workers" / "worker-1" / "events-0.jsonl").stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))
    run.wait(timeout_s=TIMEOUT_S).stop()
    (error,) = run.events("error")
    assert error.worker == "worker-1"
    assert "what happens to this worker could not be recorded (File too large)" in error.body["message"]
    assert {event.worker for event in run.events("worker.state") if event.body["state"] in ("dead", "aside")} == {"worker-1"}
