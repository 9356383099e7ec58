"""What the record makes of reports that contradict each other."""

import shutil
import time
from collections.abc import Iterator

import pytest

import pluralis_lab as pl
from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.errors import PluralisError
from pluralis_lab.store import RunDirectory
from tests.engines.swarm.conftest import small_spec
from tests.homes import shared_home


@pytest.fixture(scope="module")
def trained() -> Iterator[RunDirectory]:
    """A simulated run of 2 stages x 3 replicas that has trained its one epoch."""
    with shared_home():
        spec = small_spec(steps=4, replicas=3, micro_batches=6, batch_size=6, epoch_rounds=4, eval_every=0, checkpoint_every=4)
        yield pl.simulate(spec).wait(timeout_s=60).stop()._directory


@pytest.fixture
def ended(trained: RunDirectory, request: pytest.FixtureRequest) -> RunDirectory:
    """A copy of it, whose epoch is not closed yet."""
    copy = trained.path.parent / f"copy-{abs(hash(request.node.name))}"
    shutil.copytree(trained.path, copy)
    (copy / "evidence" / "closes.jsonl").unlink()
    return RunDirectory(copy)


def close_with(run: RunDirectory, said: dict[str, str]) -> tuple[Recorder, dict]:
    """Close the epoch after workers have reported other digests than they did, and return what came of it."""
    signer = signer_for(run.info["chain"], seed=run.spec.seed, home=run.path.parent.parent, granted={})
    recorder = Recorder(run, sign_epoch=signer.sign, clock=time.time)
    recorder.forget_after(4)
    last = {event.worker: event.body for event in run.events(kinds=["worker.round"]) if event.round == 3}
    for worker, digest in said.items():
        recorder.report(worker, time.time(), "work", {**last[worker], "round": 3, "state_digest": digest})
    try:
        assert recorder.epochs_to_close() == [0]
        closed = recorder.close_epoch(0)
        recorder.write_close(closed, at=time.time())
    finally:
        recorder.close()
    return recorder, closed


def test_the_most_replicas_are_believed_and_the_other_one_is_named(ended: RunDirectory) -> None:
    _, closed = close_with(ended, {"worker-1": "f" * 64})
    assert closed["deviants"] == ["worker-1"]
    (close,) = ended.evidence.closes()
    assert "f" * 64 not in str(close)
    (error,) = ended.events(kinds=["error"])
    assert (error.worker, "other weights than the others of stage 0" in error.body["message"]) == ("worker-1", True)


def test_when_as_many_say_one_thing_as_another_the_epoch_is_not_closed(ended: RunDirectory) -> None:
    with pytest.raises(PluralisError, match="replicas of stage 0 hold different weights after epoch 0"):
        close_with(ended, {"worker-0": "e" * 64, "worker-1": "f" * 64})
    assert not ended.evidence.closes()


def test_workers_elsewhere_do_not_outvote_those_here(ended: RunDirectory) -> None:
    rows = [{**row, "remote": True} if row["name"] in ("worker-1", "worker-2") else row for row in ended.info["workers"]]
    ended.update_info(workers=rows)
    _, closed = close_with(ended, {"worker-1": "f" * 64, "worker-2": "f" * 64})
    assert closed["deviants"] == ["worker-1", "worker-2"]


def test_a_user_is_told_who_is_gone_on_without_and_what_to_look_at(ended: RunDirectory) -> None:
    signer = signer_for(ended.info["chain"], seed=ended.spec.seed, home=ended.path.parent.parent, granted={})
    recorder = Recorder(ended, sign_epoch=signer.sign, clock=time.time)
    recorder.report("worker-4", 7.5, "unmet", {"peer": "worker-1", "waited_s": 30.0})
    recorder.close()
    (error,) = ended.events(kinds=["error"])
    assert (error.worker, error.time) == ("worker-4", 7.5)
    told = error.body["message"]  # behind the worker's name, in every view
    assert told.startswith("goes on without worker-1, which others said takes part: heard nothing from it in 30 s. ")
    assert told.endswith("Either worker-1 cannot reach worker-4, or it was named falsely")
