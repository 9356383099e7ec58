import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralis_lab.contributions.receipts import statement_hash

TOKENS = 32


def row(table, worker):
    return next(row for row in table.rows if row.worker == worker)


def expected_units(run, rounds):
    """Three passes of every micro-batch at every stage."""
    shape = run.shape
    return rounds * shape.num_micro_batches * TOKENS * 3 * sum(shape.stage_flops)


@pytest.mark.parametrize(("stages", "replicas"), [(3, 2), (2, 2), (1, 2), (1, 3), (2, 3), (4, 4)])
def test_an_honest_epoch_pays_three_passes_of_every_micro_batch_at_every_stage(paper_run, stages, replicas):
    run = paper_run(stages, replicas)
    table = run.tally(0, run.statements(0))
    assert sum(table.units.values()) == sum(row.paid_units for row in table.rows) == expected_units(run, rounds=2)
    assert (table.findings, table.notes, table.incomplete, table.unattested_units) == ((), (), (), 0)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), kept=st.floats(0.3, 1.0))
def test_the_table_does_not_depend_on_the_order_or_repetition_of_statements(grid, seed, kept):
    rng = random.Random(seed)
    lines = grid.statements(0)
    lines += [grid.receipt("forward", 0, "worker-1", "worker-2", [0, 1], salt=9)]  # contested by worker-0
    lines = [line for line in lines if rng.random() < kept]
    table = grid.tally(0, lines)
    rng.shuffle(lines)
    again = grid.tally(0, lines)
    assert again == table
    repeated = grid.tally(0, [*lines, *lines[:3]])
    assert (repeated.rows, repeated.notes) == (table.rows, table.notes)


def test_a_killed_worker_keeps_its_routed_work_and_not_its_gradients(grid):
    honest = grid.tally(0, grid.statements(0))
    lines = grid.statements(0, dead=lambda round: {"worker-2"} if round == 1 else set())
    table = grid.tally(0, lines)
    before, killed = row(honest, "worker-2"), row(table, "worker-2")
    assert killed.forward_tokens == before.forward_tokens > 0
    assert killed.backward_tokens == before.backward_tokens > 0
    # Of round 1 nobody is left at that stage who could say what its survivor recomputed: shown, not paid.
    assert row(table, "worker-2").contribution_tokens + row(table, "worker-3").contribution_tokens == 4 * TOKENS
    assert table.unattested_units == 4 * TOKENS * grid.shape.stage_flops[1]
    assert sum(table.units.values()) + table.unattested_units == expected_units(grid, rounds=2)
    assert table.incomplete == ()


def test_what_a_lone_survivor_recomputed_is_shown_as_its_own_when_it_says_so(grid):
    lines = grid.statements(0, dead=lambda round: {"worker-2"} if round == 1 else set())
    table = grid.tally(0, [*lines, grid.receipt("contribution", 1, "worker-3", "worker-3", range(4))])
    assert row(table, "worker-2").unattested_units == 0
    assert row(table, "worker-3").unattested_units == 4 * TOKENS * grid.shape.stage_flops[1]
    assert table.units == grid.tally(0, lines).units


def test_a_third_replica_attests_what_the_survivor_recomputed(paper_run):
    run = paper_run(2, 3, micro_batches=6)
    table = run.tally(0, run.statements(0, dead=lambda round: {"worker-0"} if round == 1 else set()))
    assert sum(table.units.values()) == expected_units(run, rounds=2)
    honest = run.tally(0, run.statements(0))
    assert row(table, "worker-0").contribution_tokens < row(honest, "worker-0").contribution_tokens
    assert row(table, "worker-1").contribution_tokens > row(honest, "worker-1").contribution_tokens


def test_work_signed_by_a_killed_signer_and_again_by_its_successor_counts_once_and_is_no_finding(grid):
    lines = grid.statements(0)
    first = next(line for line in lines if line["body"]["kind"] == "forward")
    body = first["body"]
    successor = {"worker-2": "worker-3", "worker-3": "worker-2"}[body["signer"]]
    indices = [index for item in body["items"] for index in item["indices"]]
    again = grid.receipt("forward", body["round"], body["worker"], successor, indices)
    table = grid.tally(0, [*lines, again])
    honest = grid.tally(0, lines)
    assert table.units == honest.units
    assert (table.findings, table.notes) == ((), ())


def test_one_worker_alone_is_paid_nothing(paper_run):
    run = paper_run(1, 1)
    alone = [run.receipt("contribution", round, "worker-0", "worker-0", range(4)) for round in (0, 1)]
    table = run.tally(0, alone)
    assert set(table.units.values()) == {0}
    assert row(table, "worker-0").unattested_units == expected_units(run, rounds=2)
    assert table.findings == ()


def test_a_stage_without_replicas_is_paid_for_its_routes_and_shows_the_rest(paper_run):
    run = paper_run(3, 1)
    table = run.tally(0, run.statements(0))
    tokens, (head, middle, tail) = 8 * TOKENS, run.shape.stage_flops
    assert [row.paid_units for row in table.rows] == [tokens * head, tokens * 2 * middle, tokens * tail]
    assert [row.unattested_units for row in table.rows] == [tokens * 2 * head, tokens * middle, tokens * 2 * tail]


def test_nobody_attests_itself_into_pay(grid):
    lines = [line for line in grid.statements(0) if line["body"]["kind"] != "contribution"]
    own = grid.receipt("contribution", 0, "worker-2", "worker-2", [0, 1])
    table = grid.tally(0, [*lines, own])
    assert all(row.contribution_tokens == 0 for row in table.rows)
    assert table.unattested_units > 0
    assert row(table, "worker-2").unattested_units >= 2 * TOKENS * grid.shape.stage_flops[1]


@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_a_micro_batch_counts_only_if_its_whole_route_is_signed(grid, kind):
    lines = grid.statements(0)
    dropped = next(line for line in lines if line["body"]["kind"] == kind)
    lost = {(dropped["body"]["round"], index) for item in dropped["body"]["items"] for index in item["indices"]}
    table = grid.tally(0, [line for line in lines if line is not dropped])
    assert set(table.incomplete) == lost
    assert sum(table.units.values()) == expected_units(grid, 2) - len(lost) * TOKENS * 3 * sum(grid.shape.stage_flops)
    assert sum(row.incomplete_units for row in table.rows) > 0


def test_a_contribution_is_no_part_of_the_route(grid):
    lines = [line for line in grid.statements(0) if line["body"]["kind"] != "contribution"]
    assert grid.tally(0, lines).incomplete == ()


def test_colluders_who_claim_work_that_was_done_elsewhere_are_noted_and_it_is_paid_once(grid):
    """worker-1 and worker-3 sign for each other what worker-0 did too: nothing is paid twice, and the claim is visible."""
    path = {index: grid.route(0, index) for index in range(4)}
    index = next(i for i, workers in path.items() if workers[0] == "worker-0")
    honest = grid.tally(0, grid.statements(0))
    claim = grid.receipt("forward", 0, "worker-1", "worker-3", [index], salt="invented")
    table = grid.tally(0, [*grid.statements(0), claim])
    assert sum(table.units.values()) == sum(honest.units.values())
    (note,) = table.notes
    assert note.kind == "duplicate"
    assert f"indices [{index}]" in note.subject
    assert "worker-0" in note.detail
    assert "worker-1" in note.detail
    assert table.findings == ()


def test_the_lowest_of_all_hashes_decides_between_two_workers_whatever_the_order(grid):
    def claim(worker, salt):
        return grid.receipt("forward", 0, worker, "worker-2", [0], salt=salt)

    rival = claim("worker-1", 0)
    mine = [claim("worker-0", salt) for salt in range(40)]
    low = min(mine, key=statement_hash)
    high = max(mine, key=statement_hash)
    assert statement_hash(low) < statement_hash(rival) < statement_hash(high)
    for lines in itertools.permutations([low, rival, high]):
        (note,) = grid.tally(0, lines).notes
        assert note.detail.endswith("counted for worker-0")
    (note,) = grid.tally(0, [high, rival]).notes
    assert note.detail.endswith("counted for worker-1")


def test_units_that_only_the_same_participant_signed_for_are_marked(paper_run):
    one_owner = paper_run(3, 2, owners=1)
    table = one_owner.tally(0, one_owner.statements(0))
    assert all(row.self_attested_units == row.paid_units > 0 for row in table.rows)
    separate = paper_run(3, 2, owners=6)
    table = separate.tally(0, separate.statements(0))
    assert all(row.self_attested_units == 0 for row in table.rows)


def test_one_foreign_signature_is_enough_to_be_no_self_attestation(paper_run):
    run = paper_run(1, 3, owners=2)  # worker-0 and worker-2 are lab-a's, worker-1 is lab-b's
    own = run.receipt("contribution", 0, "worker-0", "worker-2", [0])
    foreign = run.receipt("contribution", 0, "worker-0", "worker-1", [0])
    assert row(run.tally(0, [own]), "worker-0").self_attested_units > 0
    for lines in ([own, foreign], [foreign, own]):
        assert row(run.tally(0, lines), "worker-0").self_attested_units == 0


def test_an_epoch_without_statements_is_an_empty_table(grid):
    table = grid.tally(0, [])
    assert set(table.units.values()) == {0}
    assert (table.incomplete, table.findings, len(table.rows)) == ((), (), 6)


def test_the_frame_has_a_row_a_worker(grid):
    frame = grid.tally(1, grid.statements(1)).frame()
    assert list(frame["worker"]) == [f"worker-{i}" for i in range(6)]
    assert frame["paid_units"].sum() == expected_units(grid, rounds=2)
    assert set(frame["epoch"]) == {1}


def test_an_epoch_of_the_quickstart_is_tallied_in_a_moment(paper_run):
    run = paper_run(3, 2, rounds_per_epoch=25, micro_batches=8)
    lines = run.statements(0)
    start = time.process_time()
    table = run.tally(0, lines)
    assert time.process_time() - start < 1.5
    assert sum(table.units.values()) == expected_units(run, rounds=25)
