"""Events: no gap in `seq`, whatever is read, killed or refused meanwhile."""

import resource
import signal
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralis_lab.errors import StoreError
from pluralis_lab.store.events import Event, EventReader, EventWriter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


def seqs(path):
    reader = EventReader(path)
    try:
        return [event.seq for event in reader.read()]
    finally:
        reader.close()


def test_seq_has_no_gap_over_two_hundred_appends_and_a_reopening(path):
    writer = EventWriter(path)
    assert [writer.append("round", round=n) for n in range(200)] == list(range(1, 201))
    writer.close()
    again = EventWriter(path)
    assert again.append("round", round=200) == 201
    assert again.append_all([("a", None, None, {}, 0.0), ("b", None, None, {}, 0.0)]) == 203
    again.close()
    assert seqs(path) == list(range(1, 204))


def test_an_event_comes_back_as_it_was_written(path):
    writer, reader = EventWriter(path), EventReader(path)
    body = {
        "loss": 0.1 + 0.2,
        "links": {"worker-1": {"bytes": 2**53 + 1}},
        "text": "Zürich 🧠\x00",
        "none": None,
        "list": [1, [2]],
    }
    writer.append("worker.round", "worker-0", 7, body, time=1234.5678901)
    assert reader.read() == [Event(1, 1234.5678901, "worker.round", "worker-0", 7, body)]
    writer.append("run.state")
    assert reader.read(since=1)[0].body == {}
    assert reader.read(since=1)[0].time > 1.7e9  # now, in Unix seconds
    writer.close()
    reader.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from("abc"), max_size=12),
    since=st.integers(0, 13),
    limit=st.none() | st.integers(0, 5),
    data=st.data(),
)
def test_since_kinds_and_limit_select(kinds, since, limit, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "events.db"
    wanted = data.draw(st.none() | st.lists(st.sampled_from("abcd")))
    writer, reader = EventWriter(path), EventReader(path)
    for kind in kinds:
        writer.append(kind)
    expected = [n for n, kind in enumerate(kinds, start=1) if n > since and (wanted is None or kind in wanted)]
    assert [event.seq for event in reader.read(since=since, kinds=wanted, limit=limit)] == expected[:limit]
    assert reader.last_seq() == len(kinds)
    last = reader.last("a")
    assert (last.seq if last else 0) == max((n for n, kind in enumerate(kinds, start=1) if kind == "a"), default=0)
    writer.close()
    reader.close()


def test_a_reader_sees_a_prefix_without_gaps_while_another_process_writes(path, start_writer):
    process = start_writer(path, 1_000_000)
    acknowledged = int(process.stdout.readline())
    reader, seen, grown = EventReader(path), 0, 0
    while grown < 20:  # however late this reader is: the other one writes on until it has been seen to
        fresh = reader.read(since=seen)
        assert [event.seq for event in fresh] == list(range(seen + 1, seen + len(fresh) + 1))
        assert all(event.round == event.seq - 1 for event in fresh)
        seen += len(fresh)
        grown += bool(fresh)
        assert seen >= acknowledged
        acknowledged = int(process.stdout.readline())
    reader.close()


def test_a_killed_writer_leaves_what_it_acknowledged_and_the_next_one_goes_on(path, start_writer):
    process = start_writer(path, 1_000_000)
    for _ in range(150):
        acknowledged = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL
    found = seqs(path)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= acknowledged
    writer = EventWriter(path)
    assert writer.append("run.state") == len(found) + 1
    writer.close()
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()


def test_a_second_writer_gets_an_error_and_nothing_is_lost_or_overwritten(path):
    first, second = EventWriter(path), EventWriter(path)
    first.append("from first")
    with pytest.raises(StoreError, match="another process write"):
        second.append("from second")
    with pytest.raises(StoreError):
        second.append_all([("x", None, None, {}, 0.0), ("y", None, None, {}, 0.0)])
    assert first.append("from first") == 2
    first.close()
    second.close()
    reader = EventReader(path)
    assert [event.kind for event in reader.read()] == ["from first", "from first"]
    reader.close()


@pytest.mark.parametrize("body", [{"loss": float("nan")}, {"a": [float("inf")]}, {"a": b"bytes"}, {"a": {1, 2}}, {"a": object()}])
def test_a_body_without_a_json_form_is_refused_and_the_next_event_takes_its_place(body, path):
    writer = EventWriter(path)
    writer.append("first")
    with pytest.raises(StoreError, match="'round'"):
        writer.append("round", body=body)
    with pytest.raises(StoreError):
        writer.append_all([("good", None, None, {}, 0.0), ("bad", None, None, body, 0.0)])
    assert writer.append("second") == 2
    writer.close()
    assert seqs(path) == [1, 2]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pluralis_lab.errors import StoreError
from pluralis_lab.store.events import EventWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
writer = EventWriter(path)
kept = [writer.append("round", body={"text": "x" * 3000}) for _ in range(5)]
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
try:
    while True:
        kept.append(writer.append("round", body={"text": "x" * 3000}))
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kept.append(writer.append("round", body={"text": "after"}))
assert kept == list(range(1, len(kept) + 1)), kept
print(len(kept))
"""


def test_a_full_disk_is_a_store_error_and_writing_goes_on_without_a_gap_when_there_is_room(path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    out = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True, timeout=30)
    message, count = out.stdout.splitlines()
    assert "events.db" in message
    assert "full" in message
    assert seqs(path) == list(range(1, int(count) + 1))


def test_a_file_that_is_no_database_is_a_store_error(path):
    path.write_bytes(b"this is no database, and long enough that nobody could take it for one" * 100)
    with pytest.raises(StoreError, match=r"events\.db"):
        EventWriter(path)
    with pytest.raises(StoreError, match=r"events\.db"):
        EventReader(path).read()


def test_reading_before_the_first_event_finds_nothing(path):
    reader = EventReader(path)
    assert (reader.read(), reader.last_seq(), reader.last("round")) == ([], 0, None)
    path.touch()
    assert (reader.read(), reader.last_seq(), reader.last("round")) == ([], 0, None)
    assert path.stat().st_size == 0  # a reader makes nothing
    EventWriter(path).close()
    assert reader.read() == []
    reader.close()


@pytest.mark.parametrize("name", ["a b", "50%25", "what?mode=rwc", "c#d", "Zürich"])
def test_a_folder_with_an_odd_name_can_be_read(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    writer = EventWriter(folder / "events.db")
    writer.append("round")
    assert seqs(folder / "events.db") == [1]
    writer.close()


def test_a_reader_cannot_write(path):
    EventWriter(path).close()
    reader = EventReader(path)
    reader.read()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM events")
    reader.close()
