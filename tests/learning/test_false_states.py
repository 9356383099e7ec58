"""States with the right digest, names and shapes and with numbers that no training leads to: refused, and nothing is changed."""

import hashlib
import math
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.local_sync import LocalSync
from pluralis_lab.learning.sync_mark import read_mark, write_mark
from pluralis_lab.learning.usable import largest_usable
from pluralis_lab.parts import SGD, AdamW, Dense, DiLoCo, Muon, NAdam, SliceSync

Change = Callable[[Tensor], Tensor]
VERSION = 3


def last(value: float) -> Change:
    """Return what puts `value` in the place of a tensor's last number."""

    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[-1] = value
        return changed

    return change


def made(value: object, dtype: torch.dtype = torch.float32) -> Change:
    """Return what puts `value` in a tensor's place."""
    return lambda tensor: torch.tensor(value, dtype=dtype)


def changed(state: bytes, end: str, change: Change) -> tuple[str, bytes]:
    """Return the name of the last tensor whose name begins or ends with `end`, and the state with that one changed."""
    tensors = load(state)
    name = max(key for key in tensors if key.startswith(end) or key.endswith(end))
    tensors[name] = change(tensors[name])
    return name, save(tensors)


def restore(stage, state: bytes, version: int = VERSION) -> tasks.Result:
    return stage.run(tasks.Restore(version, state, hashlib.sha256(state).hexdigest()))


TOO_LARGE = 2 * largest_usable(torch.float64)
FALSE = [
    ("weight/", last(math.nan), "NaN, infinity"),
    ("weight/", last(-math.inf), "NaN, infinity"),
    ("weight/", last(TOO_LARGE), "a number beyond"),
    ("/exp_avg", last(math.nan), "NaN, infinity"),
    ("/exp_avg_sq", last(math.nan), "NaN, infinity"),
    ("/exp_avg_sq", last(math.inf), "NaN, infinity"),
    ("/exp_avg_sq", last(-1.0), "has -1.0e\\+00 among its means of squares"),
    ("/step", made(-1.0), "has made -1.0 steps"),
    ("/step", made(math.nan), "has made nan steps"),
    ("/step", made(math.inf), "has made inf steps"),
    ("/step", made(1.5), "has made 1.5 steps"),
    ("/step", made(VERSION + 1.0), "has made 4.0 steps for .*, after 3 rounds"),
    ("/step", made(3, torch.int64), "scalar step in float32"),
]


@pytest.mark.parametrize("optimizer", [AdamW(), NAdam(), Muon()], ids=lambda part: part.kind)
@pytest.mark.parametrize(("end", "change", "message"), FALSE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_state_of_numbers_that_no_training_leads_to_is_refused_and_changes_nothing(
    end, change, message, optimizer, make_spec, pipeline
):
    here, there = pipeline(make_spec(optimizer=optimizer)), pipeline(make_spec(optimizer=optimizer))
    for round_ in range(VERSION):
        here.step(round_)
    there.step(0)
    ours, theirs = here.stages[-1], there.stages[-1]
    state, before = ours.run(tasks.Snapshot(VERSION)).state, theirs.run(tasks.Snapshot(1)).digest
    name, bad = changed(state, end, change)
    with pytest.raises(WireError, match=message) as refused:
        restore(theirs, bad)
    assert name.removesuffix("/step").removeprefix("optimizer/").removesuffix("/exp_avg_sq") in str(refused.value)
    assert theirs.run(tasks.Snapshot(1)).digest == before
    restore(theirs, state)
    assert theirs.state_digest() == ours.state_digest()


def test_a_momentum_must_be_usable_too(make_spec, pipeline):
    here = pipeline(make_spec(optimizer=SGD()))
    here.step(0)
    name, bad = changed(here.stages[1].run(tasks.Snapshot(1)).state, "/momentum_buffer", last(math.nan))
    with pytest.raises(WireError, match=f"NaN, infinity .* in '{name}'"):
        restore(here.stages[1], bad, 1)


# --- replicas that train locally ---------------------------------------------------------------------------------------


MARK = tasks.SyncMark(counted=((3, 1), (4, 0)), begun=3, apply_at=6, lag=2)


def local_state(make_spec, pipeline, rule):
    """Return a stage that trains locally, and its state after five rounds with an exchange under way."""
    here = pipeline(make_spec(sync=rule, boundary=Dense(), optimizer=AdamW(), replicas=2, steps=9))
    stage = here.stages[1]
    stage._forget_before(4)
    stage.run(tasks.Displace(3))
    return stage, stage.run(tasks.Snapshot(5, MARK)).state


RULES = [DiLoCo(inner_steps=2), SliceSync(fraction=0.5, every=2)]


@pytest.mark.parametrize("rule", RULES, ids=lambda part: part.kind)
@pytest.mark.parametrize(
    ("end", "change", "message"),
    [
        ("sync/anchor", last(math.nan), "NaN, infinity .* 'sync/anchor'"),
        ("sync/velocity", last(math.inf), "NaN, infinity .* 'sync/velocity'"),
        ("sync/snapshot", last(TOO_LARGE), "beyond .* 'sync/snapshot'"),
        ("sync/mark", made([math.nan] * 3, torch.float64), "torch.int64"),
        ("sync/mark", made([3, 6, 2], torch.int32), "torch.int64"),
        ("sync/mark", made([5, 10**9, -7], torch.int64), "begun=5, apply_at=1000000000, lag=-7"),
        ("sync/mark", made([-2, 0, 1], torch.int64), "begun=-2"),
        ("sync/mark", made([-1, 6, 1], torch.int64), "begun=-1, apply_at=6"),
        ("sync/mark", made([5, 7, 1], torch.int64), "begun=5"),
        ("sync/mark", made([2, 6, 1], torch.int64), "begun=2"),
        ("sync/mark", made([3, 5, 1], torch.int64), "apply_at=5"),
        ("sync/mark", made([3, 7, 1], torch.int64), "apply_at=7"),
        ("sync/mark", made([3, 6, 0], torch.int64), "lag=0"),
        ("sync/mark", made([3, 6, 3], torch.int64), "lag=3"),
        ("sync/counted", made([[4.0, 1.0]], torch.float64), "torch.int64"),
        ("sync/counted", made([[5, 1]], torch.int64), "'sync/counted'"),
        ("sync/counted", made([[-1, 1]], torch.int64), "'sync/counted'"),
        ("sync/counted", made([[4, 4]], torch.int64), "'sync/counted'"),
        ("sync/counted", made([[4, -1]], torch.int64), "'sync/counted'"),
        ("sync/counted", made([[4, 1]] * 21, torch.int64), "'sync/counted' has 21 pairs"),
    ],
)
def test_where_no_replica_can_stand_is_refused_and_changes_nothing(end, change, message, rule, make_spec, pipeline):
    stage, state = local_state(make_spec, pipeline, rule)
    if end == "sync/velocity" and isinstance(rule, SliceSync):
        pytest.skip("slices have no velocity")
    with torch.no_grad():
        stage.parameters[0] += 1  # not the state that is sent
    before = stage.run(tasks.Snapshot(5, MARK)).digest
    with pytest.raises(WireError, match=message):
        restore(stage, changed(state, end, change)[1], 5)
    assert stage.run(tasks.Snapshot(5, MARK)).digest == before
    assert restore(stage, state, 5).mark == MARK


def test_an_exchange_under_way_needs_the_weights_that_it_began_with(make_spec, pipeline):
    stage, state = local_state(make_spec, pipeline, RULES[0])
    tensors = load(state)
    del tensors["sync/snapshot"]
    with pytest.raises(WireError, match="'sync/snapshot', though an exchange began after round 3"):
        restore(stage, save(tensors), 5)


def test_what_a_replica_writes_of_itself_can_be_read(make_spec):
    spec = make_spec(sync=DiLoCo(inner_steps=3), boundary=Dense(), replicas=2, steps=8)
    marks = [
        (0, tasks.SyncMark()),
        (3, tasks.SyncMark(((0, 0), (2, 3)), begun=2, apply_at=4, lag=1)),
        (5, tasks.SyncMark(((4, 1),), begun=2, apply_at=6, lag=3)),
        (7, tasks.SyncMark((), begun=5, apply_at=8, lag=3)),
        (8, tasks.SyncMark((), lag=3)),
    ]
    kept = LocalSync(spec, 1, [torch.zeros(3, dtype=torch.float64)])
    kept.displace(2)
    for version, mark in marks:
        assert read_mark(write_mark(mark) | kept.dump(), spec, version) == mark
