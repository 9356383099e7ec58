"""The digits: shapes, scale, split, and draws that depend on nothing but their name."""

from pathlib import Path

import numpy as np
import pytest

from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.errors import CorpusError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus("digits", context=None, home=tmp_path_factory.mktemp("home"))


def test_facts(digits: Corpus) -> None:
    info = digits.info()
    assert (info.kind, info.vocab, info.num_features, info.unigram_nats) == ("vectors", 10, 64, None)
    assert info.train_tokens + info.validation_tokens == 1797
    assert info.hash == open_corpus("digits", context=None, home=Path("unused")).info().hash


def test_a_micro_batch_is_scaled_and_pure(digits: Corpus) -> None:
    batch = digits.micro_batch(0, 1, 2, 32)
    assert batch.targets is not None
    assert (batch.inputs.shape, batch.inputs.dtype, batch.targets.dtype) == ((32, 64), np.float32, np.int64)
    assert (batch.inputs.min(), batch.inputs.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(batch.inputs, digits.micro_batch(0, 1, 2, 32).inputs)
    assert not np.array_equal(batch.inputs, digits.micro_batch(0, 2, 2, 32).inputs)


def test_validation_samples_are_never_trained_on(digits: Corpus) -> None:
    info = digits.info()
    validation = {sample.tobytes() for sample in digits.validation_batch(0, info.validation_tokens).inputs}
    assert len(validation) == info.validation_tokens
    drawn = {sample.tobytes() for index in range(40) for sample in digits.micro_batch(0, 0, index, 100).inputs}
    assert len(drawn) > 1000
    assert not validation & drawn


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds vectors"):
        open_corpus("digits", context=128, home=tmp_path)
    with pytest.raises(CorpusError, match="uses 10 classes, but the model has 4"):
        open_corpus("digits", context=None, vocab=4, home=tmp_path)
