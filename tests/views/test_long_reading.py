"""A run of very many events: its first reading can be followed and given up, and a cell says how far it is."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from pluralis_lab.store import EventReader, RunDirectory
from pluralis_lab.views import tail
from pluralis_lab.views.reading_note import ReadingNote
from pluralis_lab.views.widget import RunWidget

CHUNK = 50
WAIT_S = 60


@pytest.fixture
def hold_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[threading.Event, list[int]]]:
    """`hold_at(3)` keeps every reading at its third chunk until the event it returns is set, and counts chunks in the list."""

    def held(chunk: int) -> tuple[threading.Event, list[int]]:
        go, calls, read = threading.Event(), [0], EventReader.read

        def slow(reader: EventReader, *arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            assert calls[0] != chunk or go.wait(WAIT_S), "nobody let it go on"
            return read(reader, *arguments, **named)

        monkeypatch.setattr(tail, "CHUNK", CHUNK)
        monkeypatch.setattr(EventReader, "read", slow)
        return go, calls

    return held


def test_who_waits_is_told_how_far_it_is(
    finished_run: RunDirectory, hold_at: Callable[[int], tuple[threading.Event, list[int]]]
) -> None:
    (go, _), told = hold_at(3), []

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2 * CHUNK:
            go.set()

    widget = RunWidget(finished_run, on_reading=tell)
    widget.close()
    assert (2 * CHUNK, finished_run.last_seq()) in told
    assert widget.picture["seq"] == finished_run.last_seq()
    assert widget.join(timeout_s=WAIT_S)


def test_an_interrupt_ends_the_reading(
    finished_run: RunDirectory, hold_at: Callable[[int], tuple[threading.Event, list[int]]]
) -> None:
    go, reads = hold_at(3)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunWidget(finished_run, on_reading=interrupt)
    (thread,) = [one for one in threading.enumerate() if one.name.startswith("pluralis-tail")]
    go.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert reads[0] <= 4, "it read on though nobody waited"
    assert finished_run.last_seq() > 6 * CHUNK


def test_a_usual_run_needs_no_note(finished_run: RunDirectory) -> None:
    told: list[tuple[int, int]] = []
    widget = RunWidget(finished_run, on_reading=lambda *progress: told.append(progress))
    widget.close()
    assert told == []
    assert widget.join(timeout_s=WAIT_S)


def test_the_note_is_replaced_by_the_run() -> None:
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            note = ReadingNote()
            note.tell(250_000, 1_000_000)
            note.replace({"text/plain": "the run"})
        first, second = captured.outputs
        assert first.data["text/plain"] == "reading the run: 250,000 of 1,000,000 events (25%)"
        assert second.data == {"text/plain": "the run"}
        assert second.transient == first.transient != {}
        assert second.update
        assert not first.update
    finally:
        InteractiveShell.clear_instance()
