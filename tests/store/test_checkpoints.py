"""Checkpoints: the last ones, whole or refused, and for their owner alone."""

import hashlib
import os

import pytest

from pluralis_lab.errors import StoreError
from pluralis_lab.store.checkpoints import CheckpointFolder, common_versions, newest_common


def save(folder, version, state=None):
    state = f"state {version}".encode() if state is None else state
    return folder.save(version, state, hashlib.sha256(state).hexdigest())


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path)


def test_the_last_two_versions_are_kept(folder):
    for version in (25, 50, 75, 100, 1000):
        assert save(folder, version) == len(f"state {version}")
    assert folder.versions() == [100, 1000]
    state, digest = folder.load(100)
    assert state == b"state 100"
    assert digest == hashlib.sha256(state).hexdigest()
    with pytest.raises(StoreError, match=r"no checkpoint of round 75.*\[100, 1000\]"):
        folder.load(75)


def test_a_version_that_is_reached_again_replaces_the_old_bits(folder):
    for attempt in range(6):  # names are digests: whichever sorts first
        save(folder, 25, f"attempt {attempt}".encode())
        assert folder.load(25)[0] == f"attempt {attempt}".encode()
        assert len(list(folder.path.iterdir())) == 1


def test_what_a_run_that_went_back_writes_is_kept_beside_what_it_gave_up(folder):
    for version in (75, 100, 125):
        save(folder, version)
    for version in (25, 50, 75):
        save(folder, version)
        assert version in folder.versions()
    assert folder.versions() == [50, 75, 100, 125]


def test_a_run_that_goes_back_forgets_what_it_gave_up(folder):
    for version in (50, 75):
        save(folder, version)
    folder.forget_after(50)
    assert folder.versions() == [50]
    folder.forget_after(0)
    assert folder.versions() == []


def test_a_replica_gets_the_versions_that_it_lacks(folder, tmp_path):
    other = CheckpointFolder(tmp_path / "other")
    other.path.mkdir()
    save(folder, 25)
    save(folder, 50)
    save(other, 50)
    folder.hand_over(other)
    folder.hand_over(other)
    assert other.versions() == [25, 50]
    assert other.load(25) == folder.load(25)
    folder.forget_after(0)
    assert other.is_intact(25)


def test_the_latest_counts_where_a_kill_left_both(folder):
    for attempt in range(6):
        state = f"attempt {attempt}".encode()
        file = folder.path / f"checkpoint-25-{hashlib.sha256(state).hexdigest()}.safetensors"
        file.write_bytes(state)
        os.utime(file, (1000 + attempt, 1000 + attempt))
        assert folder.load(25)[0] == state
    assert folder.versions() == [25]


@pytest.mark.parametrize("content", [b"", b"state 2", b"state 26", b"state 25 "])
def test_a_damaged_file_is_refused(content, folder):
    save(folder, 25)
    next(folder.path.iterdir()).write_bytes(content)
    with pytest.raises(StoreError, match=r"checkpoint-25-.* is damaged"):
        folder.load(25)


def test_other_files_are_left_alone(folder):
    (folder.path / "hot.key").write_text("secret")
    (folder.path / "checkpoint-7-short.safetensors").write_text("no digest")
    (folder.path / ".checkpoint-8.tmp").write_text("half")
    for version in (1, 2, 3):
        save(folder, version)
    assert folder.versions() == [2, 3]
    assert (folder.path / "hot.key").read_text() == "secret"


def test_nobody_else_may_read_the_weights(folder):
    save(folder, 1)
    assert next(folder.path.iterdir()).stat().st_mode & 0o777 == 0o600


def test_common_versions_are_those_that_every_stage_has_once(tmp_path):
    def stage(*replicas):
        out = []
        for versions in replicas:
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            path.mkdir()
            out.append(CheckpointFolder(path))
            for version in versions:
                save(out[-1], version)
        return out

    ahead, behind = stage((50, 75), (50,)), stage((25, 50), ())
    assert common_versions([ahead, behind]) == [50]
    assert common_versions([ahead, behind, stage((75, 100))]) == []
    assert common_versions([ahead, stage((), ())]) == []
    assert common_versions([ahead]) == [50, 75]


def test_one_goes_on_from_the_newest_version_that_every_stage_has_undamaged(tmp_path):
    stages = [[CheckpointFolder(tmp_path / f"{stage}{replica}") for replica in (0, 1)] for stage in (0, 1)]
    for stage in stages:
        for folder in stage:
            folder.path.mkdir()
            for version in (25, 50):
                save(folder, version)
    assert newest_common(stages, up_to=100) == 50
    assert newest_common(stages, up_to=49) == 25

    def damage(folder, version):
        file = next(folder.path.glob(f"checkpoint-{version}-*"))
        file.write_bytes(file.read_bytes()[:-1] + b"x")

    damage(stages[1][0], 50)
    assert not stages[1][0].is_intact(50)
    assert newest_common(stages, up_to=100) == 50  # the other replica has it
    damage(stages[1][1], 50)
    assert newest_common(stages, up_to=100) == 25
    damage(stages[0][0], 25)
    damage(stages[0][1], 25)
    assert newest_common(stages, up_to=100) == 0
    assert not stages[0][0].is_intact(75)
