"""The pandas tables."""

import pytest

from pluralis_lab.store import RunDirectory
from pluralis_lab.views import frames


def test_metrics_has_a_row_a_round(finished_run: RunDirectory) -> None:
    table = frames.metrics(finished_run)
    assert list(table.columns) == ["round", "epoch", "loss", "validation_loss", "tokens", "tokens_per_s", "seconds"]
    assert table["round"].tolist() == list(range(200))
    assert table["validation_loss"].notna().sum() == 8
    assert table["epoch"].max() == 7


def test_contributions_sum_to_one_and_carry_owner_norm_and_agreement(finished_run: RunDirectory) -> None:
    table = frames.contributions(finished_run)
    assert table["share"].sum() == pytest.approx(1, abs=1e-12)
    assert set(table["participant"]) == {"lab-a", "lab-b", "lab-c"}
    assert table["gradient_norm"].between(0.3, 3).all()
    assert table["agreement"].between(0, 1).all()
    assert table["work_pflop"].sum() > 0


def test_workers_shows_that_none_holds_the_whole_model(half_run: RunDirectory) -> None:
    table = frames.workers(half_run).set_index("worker")
    assert (table["model_share"] < 1).all()
    assert table.groupby("stage")["model_share"].first().sum() == pytest.approx(1)
    assert table.loc["worker-3", "state"] == "dead"
    assert table.loc["worker-3", "deaths"] == 1
    assert table["busy"].tolist() == pytest.approx([0.7] * 6)


def test_links_are_told_by_direction_and_add_up_to_what_was_sent(half_run: RunDirectory) -> None:
    table = frames.links(half_run)
    sizes = ["forward_bytes", "backward_bytes", "sync_bytes", "control_bytes"]
    assert list(table) == ["source", "target", *sizes, "bytes"]
    assert (table[sizes].sum(axis=1) == table["bytes"]).all()
    sent = frames.workers(half_run).set_index("worker")["bytes_out"]
    assert table.groupby("source")["bytes"].sum().to_dict() == pytest.approx(sent.to_dict(), abs=len(table))
    of_pair = table.set_index(["source", "target"]).loc
    ahead, back = of_pair["worker-0", "worker-2"], of_pair["worker-2", "worker-0"]
    assert (ahead["forward_bytes"] > 0, ahead["backward_bytes"]) == (True, 0)
    assert (back["forward_bytes"], back["backward_bytes"] > 0) == (0, True)


def test_tables_of_a_run_without_events_have_their_columns(empty_run: RunDirectory) -> None:
    assert list(frames.links(empty_run)) == list(frames.LINK_COLUMNS)
    assert len(frames.metrics(empty_run)) == 0
    assert "loss" in frames.metrics(empty_run)
    assert len(frames.workers(empty_run)) == 6
    assert frames.contributions(empty_run)["share"].sum() == 0
