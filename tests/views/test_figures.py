"""The plotly figures."""

import json
from pathlib import Path

import pytest
from made_up_run import event_rows, make_run, write_rows

from pluralis_lab.errors import RunError
from pluralis_lab.store import RunDirectory
from pluralis_lab.views.figures import FIGURE_NAMES, figure


@pytest.mark.parametrize("name", FIGURE_NAMES)
def test_every_figure_has_data_and_a_transparent_ground(finished_run: RunDirectory, name: str) -> None:
    drawn = figure(finished_run, name)
    assert len(drawn.data) > 0
    assert drawn.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert drawn.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert len(drawn.to_json()) < 300_000


@pytest.mark.parametrize("name", FIGURE_NAMES)
def test_every_figure_can_be_drawn_before_the_first_round(empty_run: RunDirectory, name: str) -> None:
    assert "starting six workers…" in figure(empty_run, name).to_json().encode().decode("unicode_escape", "replace") or any(
        "starting six workers" in (note.text or "") for note in figure(empty_run, name).layout.annotations
    )


def test_the_five_names_are_those_of_the_public_api() -> None:
    assert FIGURE_NAMES == ("loss", "contributions", "alignment", "network", "ownership")


def test_an_unknown_name_is_answered_with_those_there_are(finished_run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"'los'.*'loss', 'contributions', 'alignment', 'network', 'ownership'"):
        figure(finished_run, "los")


def test_the_loss_figure_has_training_validation_and_unigram(finished_run: RunDirectory) -> None:
    drawn = figure(finished_run, "loss")
    assert [trace.name for trace in drawn.data] == ["training", "validation", "unigram entropy of the corpus"]
    assert len(drawn.data[0].x) == 200


def test_the_network_figure_tells_bytes_by_kind(finished_run: RunDirectory) -> None:
    hovers = [trace.hovertemplate for trace in figure(finished_run, "network").data if trace.hovertemplate]
    link = next(text for text in hovers if text.startswith("worker-0 → worker-2"))
    assert "forward" in link
    assert "tokens" in link
    assert any("sync" in text for text in hovers)


def test_ownership_is_cumulated_and_ends_at_what_the_ledger_gives(finished_run: RunDirectory) -> None:
    drawn = figure(finished_run, "ownership")
    assert len(drawn.data) == 3
    assert sum(trace.y[-1] for trace in drawn.data) == pytest.approx(1)


def test_a_stage_with_one_replica_says_why_there_is_no_alignment(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=5, replicas=1)
    write_rows(run, event_rows(run))
    assert any("one replica" in note.text for note in figure(run, "alignment").layout.annotations)


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    names = ["<b>a</b>", "<a href='javascript:x'>b</a>", "worker-2", "worker-3", "worker-4", "worker-5"]
    run = make_run(tmp_path, rounds=5, names=names, participants=("<i>p</i>", "q"))
    write_rows(run, event_rows(run))
    for name in FIGURE_NAMES:
        text = json.dumps(figure(run, name).to_plotly_json(), default=str)
        assert "<b>a" not in text
        assert "<i>p" not in text
        assert "<a href" not in text
