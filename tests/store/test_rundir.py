"""Run directories: made whole, found by the beginning of their id, and by nothing that is a path."""

import hashlib
import json

import pytest

from pluralis_lab.errors import RunError, StoreError
from pluralis_lab.spec import RunSpec
from pluralis_lab.store import EventReader, RunDirectory, find_run, list_runs, new_run_id
from pluralis_lab.store import lab_home as home_of

FOUNDER = "0x" + "Ab" * 20


def make(home, run_id, **info):
    return RunDirectory.create(home, RunSpec(steps=7), {"id": run_id, "created": 1.0, **info})


def run_id(start):
    return start + "0" * (64 - len(start))


def test_a_run_id_is_the_hash_of_spec_founder_and_nonce():
    spec = RunSpec()
    nonce = bytes(range(32))
    expected = hashlib.sha256(bytes.fromhex(spec.hash) + bytes.fromhex("ab" * 20) + nonce).hexdigest()
    assert new_run_id(spec.hash, FOUNDER, nonce) == expected
    assert len({new_run_id(spec.hash, FOUNDER) for _ in range(50)}) == 50
    assert new_run_id(RunSpec(steps=8).hash, FOUNDER, nonce) != expected
    assert new_run_id(spec.hash, "0x" + "cd" * 20, nonce) != expected


def test_a_run_is_made_with_everything_that_readers_expect(tmp_path):
    run = make(tmp_path, run_id("ab"), state="starting")
    assert run.spec == RunSpec(steps=7)
    assert (run.path / "spec.json").read_bytes() == RunSpec(steps=7).to_json()
    assert run.info == {"id": run_id("ab"), "created": 1.0, "state": "starting"}
    assert run.events() == []
    assert run.last_seq() == 0
    assert run.evidence.authorisations() == []
    for folder in ("evidence", "logs", "workers"):
        assert (run.path / folder).stat().st_mode & 0o777 == 0o700
    assert run.worker_folder("worker-3").stat().st_mode & 0o777 == 0o700


def test_facts_are_read_anew_and_changed_in_one_step(tmp_path):
    run = make(tmp_path, run_id("ab"), state="starting")
    other = RunDirectory(run.path)
    run.update_info(state="running", pid=7)
    assert other.info["state"] == "running"
    assert other.info["created"] == 1.0
    assert sorted(p.name for p in run.path.iterdir() if p.name.startswith(".")) == []


def test_events_are_seen_by_another_directory_object_and_thread_reader(tmp_path):
    run = make(tmp_path, run_id("ab"))
    writer = run.writer()
    for n in range(3):
        writer.append("round", None, n, {"loss": 1.0})
    other = RunDirectory(run.path)
    assert [event.round for event in other.events(since=1, kinds=["round"])] == [1, 2]
    assert other.last("round").round == 2
    assert other.last_seq() == 3
    assert isinstance(run.reader(), EventReader)
    assert run.reader().last_seq() == 3
    writer.close()


def test_a_folder_that_is_no_run_and_damaged_facts_are_store_errors(tmp_path):
    with pytest.raises(StoreError, match=r"no run\.json"):
        RunDirectory(tmp_path)
    run = make(tmp_path, run_id("ab"))
    (run.path / "run.json").write_text('{"id": "ab"')
    with pytest.raises(StoreError, match=r"run\.json of ab000000 is damaged"):
        _ = run.info


def test_two_runs_cannot_share_a_folder(tmp_path):
    make(tmp_path, run_id("ab"))
    with pytest.raises(FileExistsError):
        make(tmp_path, run_id("ab"))


def test_runs_are_listed_oldest_first_and_other_folders_left_out(tmp_path):
    make(tmp_path, run_id("ab"), created=3.0)
    make(tmp_path, run_id("cd"), created=1.0)
    make(tmp_path, run_id("ef"), created=2.0)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / run_id("99")).mkdir()  # being made: it has no run.json yet
    (tmp_path / "runs" / (run_id("ab") + "x")).mkdir()
    assert [run.id[:2] for run in list_runs(tmp_path)] == ["cd", "ef", "ab"]
    assert list_runs(tmp_path / "empty") == []


@pytest.mark.parametrize("facts", ["{", "[]", '{"created": null}', "{}"])
def test_a_run_with_damaged_facts_hides_none_of_the_others(facts, tmp_path):
    make(tmp_path, run_id("ab"), created=3.0)
    make(tmp_path, run_id("cd"), created=1.0)
    (tmp_path / "runs" / run_id("cd") / "run.json").write_text(facts)
    assert [run.id[:2] for run in list_runs(tmp_path)] == ["cd", "ab"]


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path):
    for start in ("abc1", "abd2", "ffff"):
        make(tmp_path, run_id(start))
    assert find_run("f", tmp_path).id == run_id("ffff")
    assert find_run("abc", tmp_path).id == run_id("abc1")
    assert find_run(run_id("abd2"), tmp_path).id == run_id("abd2")
    with pytest.raises(RunError, match=r"2 runs begin with 'ab'.*give more") as raised:
        find_run("ab", tmp_path)
    assert "abc1" in str(raised.value)
    assert "abd2" in str(raised.value)
    with pytest.raises(RunError, match=r"no run '0'.*pluralis-lab runs"):
        find_run("0", tmp_path)


@pytest.mark.parametrize("prefix", ["", "../x", "..", "/etc", "ab/../cd", "AB", "xyz", "ab\n", "ab\x00", "*", "a" * 65])
def test_a_prefix_that_is_no_hexadecimal_is_refused(prefix, tmp_path):
    make(tmp_path, run_id("ab"))
    with pytest.raises(RunError, match="not hexadecimal") as raised:
        find_run(prefix, tmp_path)
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("name", ["../x", "..", "", "a/b", "/etc/passwd", "worker-0\n", "Worker", "."])
def test_a_worker_name_that_is_a_path_is_refused(name, tmp_path):
    run = make(tmp_path, run_id("ab"))
    (tmp_path / "x.log").write_text("outside")
    with pytest.raises(StoreError, match="no process of a run"):
        run.log_tail(name)
    with pytest.raises(StoreError, match="no process of a run"):
        run.worker_folder(name)


def test_the_end_of_a_log_is_short_and_survives_odd_bytes(tmp_path):
    run = make(tmp_path, run_id("ab"))
    assert run.log_tail("worker-0") == ""
    (run.path / "logs" / "worker-0.log").write_bytes(b"\xff\xfe" + b"\n".join(b"line %d" % n for n in range(100_000)))
    tail = run.log_tail("worker-0", lines=3)
    assert tail == "line 99997\nline 99998\nline 99999"


def test_the_home_is_the_given_one_then_the_variable_then_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("PLURALIS_LAB_HOME", str(tmp_path / "variable"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert home_of(tmp_path / "given") == tmp_path / "given"
    assert home_of() == tmp_path / "variable"
    monkeypatch.delenv("PLURALIS_LAB_HOME")
    assert home_of() == tmp_path / "user" / ".pluralis_lab"
    assert home_of().stat().st_mode & 0o777 == 0o700


def test_run_json_is_readable_by_any_tool(tmp_path):
    run = make(tmp_path, run_id("ab"), workers=[{"name": "worker-0"}])
    assert json.loads((run.path / "run.json").read_text())["workers"] == [{"name": "worker-0"}]
