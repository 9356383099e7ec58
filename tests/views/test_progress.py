"""Progress while waiting: few lines, the right ones."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_run import event_rows, make_run

from pluralis_lab.store import RunDirectory
from pluralis_lab.views.progress import ProgressLine, progress_mode, progress_text


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _play(run: RunDirectory, line_of: Clock, line: ProgressLine, seconds_a_round: Iterator[float]) -> None:
    """Write the run's events as they would come, and update twice a second in between."""
    writer = run.writer()
    for kind, worker, round_, body, at in event_rows(run):
        writer.append(kind, worker, round_, body, time=at)
        if kind == "round":
            rest = next(seconds_a_round)
            while rest > 0:
                line_of.now += min(0.5, rest)
                rest -= 0.5
                line.update()
    writer.close()


def _forever(value: float) -> Iterator[float]:
    while True:
        yield value


def _uneven() -> Iterator[float]:
    """Stalls of 29 s between bursts: the worst for a rule that counts both progress and silence."""
    while True:
        for _ in range(33):
            yield 0.05
        yield 29.0


@pytest.mark.parametrize("pace", [_forever(0.9), _uneven(), _forever(0.01)], ids=["even", "uneven", "fast"])
def test_a_run_of_three_minutes_prints_at_most_fifteen_lines(tmp_path: Path, pace: Iterator[float]) -> None:
    run, out, clock = make_run(tmp_path), io.StringIO(), Clock()
    with ProgressLine(run, mode="lines", stream=out, clock=clock, final=False) as line:
        _play(run, clock, line, pace)
    lines = out.getvalue().splitlines()
    assert clock.now <= 185
    assert 2 <= len(lines) <= 15
    assert lines[0] == "starting six workers…"
    assert lines[-1].startswith("finished · loss 2.")
    assert "worker-3 died in round 87" in out.getvalue()
    assert out.getvalue().count("worker-3 died") == 1


def test_a_long_silence_is_broken_by_fewer_and_fewer_lines(empty_run: RunDirectory) -> None:
    out, clock = io.StringIO(), Clock()
    line = ProgressLine(empty_run, mode="lines", stream=out, clock=clock)
    line.update()
    for _ in range(7200):
        clock.now += 0.5
        line.update()
    assert out.getvalue().splitlines() == ["starting six workers…"]


def test_the_block_ends_with_the_record(half_run: RunDirectory) -> None:
    out = io.StringIO()
    with ProgressLine(half_run, mode="lines", stream=out):
        pass
    assert "round 92/200 (46 %)" in out.getvalue()
    assert "ownership" in out.getvalue()


def test_an_error_on_its_way_is_not_buried_under_a_record(half_run: RunDirectory) -> None:
    out = io.StringIO()

    def fail() -> None:
        with ProgressLine(half_run, mode="lines", stream=out):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert "ownership" not in out.getvalue()


def test_a_terminal_gets_a_bar(finished_run: RunDirectory) -> None:
    out = io.StringIO()
    with ProgressLine(finished_run, mode="terminal", stream=out, final=False) as line:
        assert line.update().is_over
    assert "finished" in out.getvalue()


def test_the_line_says_where_the_run_is(half_run: RunDirectory) -> None:
    line = ProgressLine(half_run, mode="lines", stream=io.StringIO())
    text = progress_text(line.update())
    for part in ("round 92/200 (46 %)", "loss 2.", "validation 2.", "tokens/s", "5/6 workers", "elapsed", "left"):
        assert part in text


def test_headless_means_lines() -> None:
    assert progress_mode(headless=True) == "lines"
