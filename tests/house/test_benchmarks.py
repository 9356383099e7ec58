"""What a benchmark says: targets in both directions, one object, and the README's table."""

import importlib
import inspect
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import benchmarks.__main__ as program
from benchmarks import quality, sync_cost, sync_quality
from benchmarks.__main__ import NAMES, as_object
from benchmarks.readme_table import BEGIN, END, README, as_json, keep, kept, markdown, write_table
from benchmarks.result import Result

FAST = Result("start.first_step", "s", 6.0, 4.0, 5, peer=20.0, peer_name="theirs", note="cold | warm")
SLOW = Result("single.share", "", 0.95, 0.9, 3, at_least=True)
SHOWN = Result("single.tokens", "tokens/s", None, 100.0, 3, peer=80.0, peer_name="a loop", at_least=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_module_here_is_a_benchmark_that_can_be_run(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert list(inspect.signature(module.run).parameters) == ["quick"]
    assert module.__doc__


def test_a_target_is_the_most_or_the_least_and_the_ratio_says_how_much_better_ours_is() -> None:
    assert FAST.ok
    assert FAST.ratio == 5.0
    assert not SLOW.ok
    assert SLOW.ratio is None
    assert SHOWN.ok
    assert SHOWN.ratio == 1.25


def test_a_benchmark_is_one_object_with_its_headline_and_all_its_figures() -> None:
    told = as_object("single", [SLOW, SHOWN])
    assert {"name", "target", "measured", "peer", "ratio", "repeats", "machine", "ok"} <= told.keys()
    assert (told["name"], told["measured"], told["ok"]) == ("single", 0.9, False)
    assert (told["peer"], told["peer_name"], told["ratio"]) == (80.0, "a loop", 1.25)
    assert [figure["name"] for figure in told["figures"]] == ["single.share", "single.tokens"]


def test_the_table_goes_between_the_marks_and_says_what_was_missed(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{BEGIN}an earlier table\n{END}\nafter\n")
    write_table([FAST, SLOW, SHOWN, Result("x.loss", "nats", None, 1.0, 1)], file)
    text = file.read_text()
    assert text.startswith(f"before\n{BEGIN}| figure |")
    assert text.endswith(f"{END}\nafter\n")
    assert "an earlier table" not in text
    assert ">= 0.95, missed" in text
    assert "cold \\| warm" in text
    assert "x.loss" not in text
    beside = Result("x.loss", "nats", None, 1.5, 1, shown=True)
    write_table([beside], file)  # what was not measured again stays
    rows = [line for line in file.read_text().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [*sorted(one.name for one in (FAST, SLOW, SHOWN)), "x.loss"]
    file.write_text("no marks")
    with pytest.raises(ValueError, match="no marks"):
        write_table([FAST], file)


def test_what_was_measured_is_kept_until_it_is_measured_again(tmp_path: Path) -> None:
    keep("single", [SLOW], tmp_path / "new")
    keep("single", [SLOW, SHOWN], tmp_path / "new")
    keep("start", [FAST], tmp_path / "new")
    assert kept(["start", "single", "never_run"], tmp_path / "new") == [FAST, SLOW, SHOWN]


def test_the_readme_has_the_marks_and_a_table_of_benchmarks_that_exist() -> None:
    table = README.read_text().partition(BEGIN)[2].partition(END)[0]
    named = {line.split("`")[1].partition(".")[0] for line in table.splitlines() if line.startswith("| `")}
    assert named
    assert named <= set(NAMES)
    assert markdown([]).startswith("| figure |")


def test_what_one_benchmark_lacks_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}{END}")

    def needs_root(*, quick: bool) -> list[Result]:
        raise RuntimeError("needs root")

    monkeypatch.setattr(program, "NAMES", ["slow_link", "single"])
    monkeypatch.setattr("benchmarks.slow_link.run", needs_root)
    monkeypatch.setattr("benchmarks.single.run", lambda *, quick: [SHOWN])
    monkeypatch.setattr(program, "keep", lambda name, results: keep(name, results, tmp_path))
    monkeypatch.setattr(program, "kept", lambda names: kept(names, tmp_path))
    monkeypatch.setattr(program, "write_table", lambda results: write_table(results, readme))
    monkeypatch.setattr("sys.argv", ["benchmarks", "all"])
    assert program.main() == 1
    assert "single.tokens" in readme.read_text()
    assert "not measured: slow_link (RuntimeError: needs root)" in capsys.readouterr().err


def test_a_note_of_sync_quality_says_which_rates_were_tried() -> None:
    full, slices, _, local = sync_quality.ARMS
    losses = {full: {4e-3: 1.5}, slices: {8e-3: 1.575}, local: {4e-3: 1.8, 2e-3: 1.9, 8e-3: 2.0}}
    over, local_over, *_ = sync_quality.compared(losses, 600, has_target=True)
    assert (over.measured, over.target, local_over.measured) == (pytest.approx(1.05), 1.05, pytest.approx(1.2))
    assert over.note.endswith(" tokens, lr 0.008 (the only one tried), FullSync lr 0.004 (the only one tried)")
    assert local_over.note.endswith(" tokens, lr 0.004 (of 0.002, 0.004, 0.008), FullSync lr 0.004 (the only one tried)")
    words = r"lr [\d.]+ \((of [\d., ]+|the only one tried)\)"
    rows = [line for line in README.read_text().splitlines() if line.startswith("| `sync_quality.")]
    assert rows
    assert all(re.search(f" tokens, {words}, FullSync {words}; 1 x ", row) for row in rows), "these are not the command's words"


def test_times_of_quality_are_said_to_be_virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = SimpleNamespace(round_s=0.5, bytes_per_round={"forward": 1, "backward": 1})
    monkeypatch.setattr(quality, "plan", lambda arm, stages, rate: planned)
    trained = {(arm, 4): quality.Trained(rate=4e-3, steps=100.0, loss=2.4, first_loss=5.5, delay=4.0) for arm in quality.ARMS}
    results = [*quality.comparisons(4, trained, quick=False), *quality.four_columns(quality.OURS, 4, trained[quality.OURS, 4])]
    assert all("virtual" in one.note for one in results if one.unit in ("s", "x"))
    rows = [line for line in README.read_text().splitlines() if line.startswith("| `quality.total")]
    assert rows
    assert all("virtual" in row for row in rows)


def test_without_a_sound_peer_a_figure_has_no_target_misses_it_and_says_why(tmp_path: Path) -> None:
    ours: sync_cost.Costs = {name: [sync_cost.Cost(0.02, 0.04, sent_bytes=1000.0)] for name in sync_cost.RULES}
    theirs: sync_cost.Costs = {name: [] for name in sync_cost.SETTINGS}
    results = sync_cost.compared("stall", ours, theirs, 100, 20, has_target=True)
    assert len(results) == len(sync_cost.RULES)
    assert {(one.target, one.peer, one.ratio, one.ok) for one in results} == {(None, None, None, False)}
    assert all("with none of its settings did hivemind's peers all make 20 rounds together" in one.note for one in results)
    told = json.loads(as_json(as_object("sync_cost", results)), parse_constant=pytest.fail)
    assert (told["target"], told["peer"], told["ok"]) == (None, None, False)
    assert " | none, missed |  | " in markdown(results)
    keep("sync_cost", results, tmp_path)
    assert kept(["sync_cost"], tmp_path) == results
    beside = sync_cost.compared("stall at 100mbit/s", ours, theirs, 100, 20, has_target=False)
    assert all(one.ok for one in beside)


@pytest.mark.parametrize(
    ("met", "is_sound"),
    [([4] * 6, True), ([4, 3, 3, 2], True), ([3] * 20, False), ([], False)],
    ids=["together", "once all of them", "never all of them", "alone"],
)
def test_a_peer_of_hivemind_that_trained_alone_is_no_peer_to_compare_with(met: list[int], is_sound: bool) -> None:
    assert sync_cost.trained_together({"met": met}, 20) is is_sound


def test_a_rule_is_compared_with_the_best_setting_whose_peers_trained_together() -> None:
    ours = {"DiLoCo(20)": [sync_cost.Cost(0.03, 0.04)]}
    theirs = {
        "waits": [sync_cost.Cost(0.9, 0.04, num_met=40)],
        "local": [sync_cost.Cost(0.6, 0.04, num_steps=2.0, num_met=6)],
        "alone": [],
    }
    mine, *settings = sync_cost.compared("stall", ours, theirs, 100, 20, has_target=True)
    assert mine.peer == pytest.approx(600.0)
    assert (mine.target, mine.ok) == (pytest.approx(30.0), True)
    assert mine.peer_name == "hivemind.Optimizer, local, 2.0 steps a round, all averaged 6 times in 20 rounds"
    assert [one.measured for one in settings] == pytest.approx([900.0, 600.0])


def test_medians_of_turns_are_compared_and_a_setting_that_was_sound_only_once_is_no_peer() -> None:
    def costs(*stalls_s: float, **facts: int) -> list[sync_cost.Cost]:
        return [sync_cost.Cost(stall_s, 0.04, **facts) for stall_s in stalls_s]

    ours = {"DiLoCo(20)": costs(0.03, 0.05, 0.04)}
    theirs = {"once": costs(0.1), "waits": costs(0.9, 1.2, 0.6, num_met=8), "local": costs(2.0, 0.7, num_met=5)}
    assert sync_cost.quickest(theirs) == ["once", "waits"]
    mine, *_ = sync_cost.compared("stall", ours, theirs, 100, 20, has_target=True)
    assert (mine.measured, mine.repeats, mine.ok) == (pytest.approx(40.0), 3, True)
    assert (mine.peer, mine.target) == (pytest.approx(900.0), pytest.approx(45.0))
    assert mine.note.startswith("30 to 50 ms, a round's time over")
    assert "hivemind.Optimizer, waits, 600 to 1200 ms, 1.0 steps a round, all averaged at least 8 times in" in mine.peer_name


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_no_json_and_what_was_kept_stays(tmp_path: Path, figure: float) -> None:
    keep("single", [SHOWN], tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        keep("single", [Result("single.tokens", "tokens/s", None, figure, 1)], tmp_path)
    assert kept(["single"], tmp_path) == [SHOWN]
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(as_object("single", [Result("single.tokens", "tokens/s", None, figure, 1)]))
