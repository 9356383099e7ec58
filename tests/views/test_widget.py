"""The live widget's Python half, with the real thread and a real store."""

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_up_run import event_rows, make_run, write_rows

from pluralis_lab.errors import StoreError
from pluralis_lab.store import RunDirectory
from pluralis_lab.views.bundle import WIDGET_MIME_TYPE, display_watch, mime_bundle
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import MAX_PAYLOAD_BYTES, payload_bytes
from pluralis_lab.views.tail import Tail
from pluralis_lab.views.widget import RunWidget, _hear_the_page_while_a_cell_runs, module_source, style_source

WAIT_S = 60
"""For what comes at once on a machine that has nothing else to do."""


@pytest.fixture
def widgets() -> Iterator[list[RunWidget]]:
    """Close what a test opened, and insist that its thread ends."""
    opened: list[RunWidget] = []
    yield opened
    for widget in opened:
        widget.close()
        assert widget.join(timeout_s=WAIT_S)


def _wait(changed: threading.Event) -> None:
    assert changed.wait(WAIT_S), "nothing was sent"
    changed.clear()


def test_the_module_is_one_file_that_imports_nothing() -> None:
    source = module_source()
    assert not re.search(r"^\s*import\b", source, re.MULTILINE)
    assert re.findall(r"^export\b.*$", source, re.MULTILINE) == ["export default { render };"]
    assert "innerHTML" not in source
    assert len(source) < 72_000
    assert not re.search(r"\b(?:transition|animation)\s*:", style_source()), "nothing moves of itself"


def test_the_widget_starts_with_the_picture_of_now(half_run: RunDirectory, widgets: list[RunWidget]) -> None:
    widget = RunWidget(half_run)
    widgets.append(widget)
    assert widget.picture["rounds_done"] == 92
    assert payload_bytes(widget.picture) < MAX_PAYLOAD_BYTES
    assert widget.can_stop is False


def test_new_events_reach_the_widget(tmp_path: Path, widgets: list[RunWidget]) -> None:
    run = make_run(tmp_path, rounds=20)
    widget = RunWidget(run)
    widgets.append(widget)
    changed = threading.Event()
    widget.observe(lambda _: changed.set(), "picture")
    widget.start()
    write_rows(run, event_rows(run, until=5))
    _wait(changed)
    assert widget.picture["rounds_done"] == 5
    assert widget.is_following


def test_the_thread_ends_with_the_run(finished_run: RunDirectory, widgets: list[RunWidget]) -> None:
    widget = RunWidget(finished_run)
    widgets.append(widget)
    widget.start()
    assert widget.join(timeout_s=WAIT_S)
    assert widget.picture["headline"] == "finished"


def test_the_thread_ends_when_the_widget_is_closed(half_run: RunDirectory) -> None:
    widget = RunWidget(half_run)
    widget.start()
    assert widget.is_following
    widget.close()
    assert widget.join(timeout_s=WAIT_S)


def test_at_most_four_updates_a_second_and_none_is_lost(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=40)
    times: list[float] = []
    seen: list[int] = []
    over = threading.Event()

    def note(picture: RunPicture, heard_at: float | None, problem: str) -> None:
        times.append(time.monotonic())
        seen.append(picture.seq)
        if picture.is_over:
            over.set()

    tail = Tail(run, note)
    tail.start()
    writer = run.writer()
    for kind, worker, round_, body, at in event_rows(run):
        writer.append(kind, worker, round_, body, time=at)
        if kind == "round":
            over.wait(0.05)
    writer.close()
    assert over.wait(WAIT_S)
    assert tail.join(WAIT_S)
    assert seen[-1] == run.last_seq()
    assert len(times) >= 4
    assert all(after - before >= 0.245 for before, after in pairwise(times))


def test_a_silent_run_still_gets_a_sign_of_life(half_run: RunDirectory) -> None:
    told: list[int] = []
    enough = threading.Event()

    def note(picture: RunPicture, heard_at: float | None, problem: str) -> None:
        told.append(picture.seq)
        if len(told) == 3:
            enough.set()

    tail = Tail(half_run, note, interval_s=0.02, heartbeat_s=0.05)
    tail.start()
    assert enough.wait(WAIT_S)
    tail.close()
    assert tail.join(WAIT_S)
    assert len(set(told)) == 1


def test_a_run_directory_that_breaks_is_told_and_ends_the_thread(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_rows(run, event_rows(run, until=3))
    problems: list[str] = []
    started, told = threading.Event(), threading.Event()

    def note(picture: RunPicture, heard_at: float | None, problem: str) -> None:
        started.set()
        if problem:
            problems.append(problem)
            told.set()

    tail = Tail(run, note, interval_s=0.02)
    tail.start()
    assert started.wait(WAIT_S)
    # A hole in seq, as a damaged file would have it.
    with sqlite3.connect(run.path / "events.db") as database:
        database.execute("INSERT INTO events VALUES (?, 0, 'round', NULL, 9, '{}')", (run.last_seq() + 7,))
    assert told.wait(WAIT_S)
    assert tail.join(WAIT_S)
    assert "cannot be read" in problems[0]


def test_the_thread_prints_nothing(finished_run: RunDirectory, capfd: pytest.CaptureFixture[str]) -> None:
    widget = RunWidget(finished_run)
    widget.start()
    assert widget.join(timeout_s=WAIT_S)
    widget.close()
    assert capfd.readouterr() == ("", "")


def test_stop_calls_back_once_and_outside_the_message_handler(half_run: RunDirectory, widgets: list[RunWidget]) -> None:
    calls: list[str] = []
    release, stopped = threading.Event(), threading.Event()

    def on_stop() -> None:
        calls.append(threading.current_thread().name)
        assert release.wait(WAIT_S)

    widget = RunWidget(half_run, on_stop=on_stop)
    widgets.append(widget)
    widget.observe(lambda change: stopped.set() if change["new"] == "stopped" else None, "stop_state")
    for _ in range(3):
        widget._handle_custom_msg({"command": "stop"}, [])
    assert widget.stop_state == "stopping"
    release.set()
    assert stopped.wait(WAIT_S)
    assert calls == ["pluralis-stop"]


def test_what_stop_raises_is_told_to_the_reader(half_run: RunDirectory, widgets: list[RunWidget]) -> None:
    told = threading.Event()

    def on_stop() -> None:
        raise RuntimeError("the supervisor does not answer")

    widget = RunWidget(half_run, on_stop=on_stop)
    widgets.append(widget)
    widget.observe(lambda change: told.set() if change["new"].startswith("failed") else None, "stop_state")
    widget._handle_custom_msg({"command": "stop"}, [])
    assert told.wait(WAIT_S)
    assert widget.stop_state == "failed: RuntimeError: the supervisor does not answer"


@pytest.mark.parametrize("content", [{}, {"command": "start"}, "stop", None, {"command": ["stop"]}])
def test_other_messages_of_the_page_command_nothing(half_run: RunDirectory, widgets: list[RunWidget], content: Any) -> None:
    calls: list[int] = []
    widget = RunWidget(half_run, on_stop=lambda: calls.append(1))
    widgets.append(widget)
    widget._handle_custom_msg(content, [])
    assert widget.stop_state == "idle"
    assert calls == []


def test_the_bundle_has_the_widget_only_where_a_kernel_can_feed_it(half_run: RunDirectory, widgets: list[RunWidget]) -> None:
    widget = RunWidget(half_run)
    widgets.append(widget)
    assert mime_bundle(half_run, widget)[WIDGET_MIME_TYPE]["model_id"] == widget.model_id
    assert WIDGET_MIME_TYPE not in mime_bundle(half_run)


def test_headless_watch_stores_the_record_and_starts_no_thread(
    half_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    assert display_watch(half_run, headless=True) is None
    assert threading.active_count() == before
    assert "worker-3" in capsys.readouterr().out


def test_stop_is_not_routed_to_the_thread_of_a_running_cell() -> None:
    class Comm:
        """What ipykernel 7.4 asks a comm before it hands a message to a thread."""

        def _reply_subshell_for(self, data: object, default: object) -> object:
            return None

    comm = Comm()
    _hear_the_page_while_a_cell_runs(comm)
    assert comm._reply_subshell_for({}, "subshell-1") == "subshell-1"
    _hear_the_page_while_a_cell_runs(object())


def _tails() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pluralis-tail")]


def test_several_views_of_a_run_share_one_thread_and_one_fold(
    tmp_path: Path, widgets: list[RunWidget], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, rounds=40)
    rows = list(event_rows(run))
    write_rows(run, iter(rows[:200]))
    folded: list[int] = []
    update = RunPicture.update

    def counted(picture: RunPicture, events: Any) -> RunPicture:
        before = picture.seq
        update(picture, events)
        folded.append(picture.seq - before)
        return picture

    monkeypatch.setattr(RunPicture, "update", counted)
    for _ in range(3):
        # A second handle of the run, as another cell would open it.
        widget = RunWidget(RunDirectory(run.path))
        widgets.append(widget)
        assert mime_bundle(run, widget)["text/plain"].startswith("pluralis_lab run")
        widget.start()
    assert len(_tails()) == 1
    assert sum(folded) == 200, "every event is folded once, for the views and for their records"
    assert len({id(widget.picture) for widget in widgets}) == 1
    changed = [threading.Event() for _ in widgets]
    for widget, event in zip(widgets, changed, strict=True):
        widget.observe(lambda _, event=event: event.set(), "picture")
    write_rows(run, iter(rows[200:300]))
    for event in changed:
        _wait(event)
    assert sum(folded) == 300

    first, *others = widgets
    first.close()
    assert first.join(timeout_s=0)
    assert not first.is_following
    assert all(widget.is_following for widget in others), "one that is closed leaves the reader to the others"
    for widget in others:
        widget.close()
    assert others[-1].join(timeout_s=WAIT_S)
    assert _tails() == []


def test_a_view_opened_after_the_last_was_closed_follows_the_run_anew(tmp_path: Path, widgets: list[RunWidget]) -> None:
    run = make_run(tmp_path, rounds=20)
    write_rows(run, event_rows(run, until=3))
    RunWidget(run).close()
    widget = RunWidget(run)
    widgets.append(widget)
    widget.start()
    assert widget.is_following
    assert widget.picture["rounds_done"] == 3


def test_a_view_that_cannot_be_fed_does_not_end_the_others(tmp_path: Path, widgets: list[RunWidget]) -> None:
    run = make_run(tmp_path, rounds=20)
    write_rows(run, event_rows(run, until=3))
    broken, sound = RunWidget(run), RunWidget(run)
    widgets += [broken, sound]

    def refuse(change: object) -> None:
        raise OSError("the page is gone")

    broken.observe(refuse, "picture")
    changed = threading.Event()
    sound.observe(lambda _: changed.set(), "picture")
    broken.start()
    sound.start()
    writer = run.writer()
    writer.append("round", round=3, body={"loss": 1.0, "tokens": 1, "seconds": 1.0, "tokens_per_s": 1.0})
    writer.close()
    _wait(changed)
    assert sound.picture["rounds_done"] == 4
    assert sound.is_following


def test_a_run_that_is_gone_cannot_be_watched(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(StoreError):
        RunWidget(RunDirectory(run.path))
    assert _tails() == []
