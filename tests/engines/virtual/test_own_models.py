"""A model of the user's own trains as one process would train it, under every schedule and codec that takes it."""

import pytest

import pluralis_lab as pl
from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.engines.virtual import Kill
from tests.engines.conftest import Observed, run_virtual, tiny_spec
from tests.engines.virtual.test_equals_one_process import assert_equals_reference

MODULE = "tests.models.own_blocks"


@pytest.fixture(scope="module")
def mixed() -> pl.Blocks:
    """An embedding, three convolutions, a recurrent block and a projection, for the tests' text."""
    return pl.Blocks(f"{MODULE}:mixed", context=16)


def own_spec(text: Corpus, model: pl.Blocks, **changes: object) -> pl.RunSpec:
    return tiny_spec(text, **{"model": model, "boundary": pl.Dense(), "steps": 8, **changes})


@pytest.mark.parametrize("stages", [1, 3, 6])
def test_its_stages_give_the_losses_and_gradients_of_one_process(text: Corpus, mixed: pl.Blocks, stages: int) -> None:
    spec = own_spec(text, mixed, stages=stages, replicas=2)
    seen = run_virtual(spec, text)
    assert_equals_reference(seen, spec, text, 1e-12)
    assert seen.losses[7] < seen.losses[0]


def test_blocks_with_outputs_of_different_dimensions_equal_one_process(tmp_path) -> None:
    digits = open_corpus("digits", context=None, home=tmp_path)
    spec = tiny_spec(
        digits, model=pl.Blocks(f"{MODULE}:images", features=64), boundary=pl.Dense(), stages=2, steps=10, batch_size=16
    )
    assert_equals_reference(run_virtual(spec, digits), spec, digits, 1e-12)


@pytest.mark.parametrize("boundary", [pl.Int8(), pl.TopK(4), pl.Dense("bfloat16")], ids=lambda part: part.kind)
def test_lossy_codecs_take_it_and_it_learns(text: Corpus, mixed: pl.Blocks, boundary: pl.Int8 | pl.TopK | pl.Dense) -> None:
    seen = run_virtual(own_spec(text, mixed, boundary=boundary, steps=20), text)
    assert seen.losses[19] < seen.losses[0] - 0.2


@pytest.mark.parametrize("stashing", [True, False], ids=["stashing", "without"])
def test_it_learns_without_waiting(text: Corpus, mixed: pl.Blocks, stashing: bool) -> None:
    spec = own_spec(text, mixed, schedule="async", stashing=stashing, replicas=2, steps=20)
    seen = run_virtual(spec, text)
    assert seen.losses[19] < seen.losses[0] - 0.2
    assert_replicas_agree(seen)


def test_a_killed_worker_costs_it_nothing(text: Corpus, mixed: pl.Blocks) -> None:
    spec = own_spec(text, mixed, replicas=2, optimizer=pl.Muon())
    undisturbed = run_virtual(spec, text)
    killed = run_virtual(spec, text, kills=(Kill("worker-2", after_events=150),))
    assert killed.losses == pytest.approx(undisturbed.losses, abs=2e-2)
    assert_replicas_agree(killed)


def test_replicas_that_train_on_their_own_end_with_one_model(text: Corpus, mixed: pl.Blocks) -> None:
    spec = own_spec(text, mixed, replicas=2, sync=pl.SliceSync(fraction=0.25, every=2), steps=10)
    assert_replicas_agree(run_virtual(spec, text))


def assert_replicas_agree(seen: Observed) -> None:
    assert all(len(digests) == 1 for digests in seen.digests().values())
