"""Text corpora: caching, split, and micro-batches that are pure functions of (seed, round, index)."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.corpus.readers import stdlib_files
from pluralis_lab.errors import CorpusError

CONTEXT = 32


@pytest.fixture
def text(tmp_path: Path) -> bytes:
    content = b"".join(b"%06d\n" % number for number in range(20_000))
    (tmp_path / "text.txt").write_bytes(content)
    return content


def _open(tmp_path: Path, home: str = "home") -> Corpus:
    return open_corpus(f"path:{tmp_path / 'text.txt'}", context=CONTEXT, home=tmp_path / home)


def test_the_split_keeps_every_byte_once(tmp_path: Path, text: bytes) -> None:
    info = _open(tmp_path).info()
    assert info.train_tokens + info.validation_tokens == len(text)
    assert info.validation_tokens / len(text) == pytest.approx(0.05, abs=0.005)
    assert info.hash == hashlib.sha256(text).hexdigest()
    cached = next((tmp_path / "home" / "corpora").glob("*.bin")).read_bytes()
    block = len(text) // 20
    assert cached == text[: 19 * block] + text[20 * block :] + text[19 * block : 20 * block]


def test_a_window_is_a_piece_of_the_training_text(tmp_path: Path, text: bytes) -> None:
    batch = _open(tmp_path).micro_batch(seed=3, round=5, index=7, size=6)
    assert batch.inputs.shape == (6, CONTEXT + 1)
    assert batch.inputs.dtype == np.uint16
    assert batch.targets is None
    train = text[: 19 * (len(text) // 20)]
    assert sum(bytes(window.astype(np.uint8)) in train for window in batch.inputs) == 6


def test_a_micro_batch_depends_on_nothing_but_seed_round_and_index(tmp_path: Path, text: bytes) -> None:
    corpus, other = _open(tmp_path), _open(tmp_path, "another-home")
    first = corpus.micro_batch(1, 2, 3, 4).inputs
    corpus.micro_batch(9, 9, 9, 9)
    np.testing.assert_array_equal(corpus.micro_batch(1, 2, 3, 4).inputs, first)
    np.testing.assert_array_equal(other.micro_batch(1, 2, 3, 4).inputs, first)
    for changed in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (12, 3, 3)):
        assert not np.array_equal(corpus.micro_batch(*changed, 4).inputs, first)


def test_draws_are_the_same_bytes_on_every_machine(tmp_path: Path, text: bytes) -> None:
    drawn = _open(tmp_path).micro_batch(seed=0, round=0, index=0, size=64).inputs.astype("<u2").tobytes()
    assert hashlib.sha256(drawn).hexdigest() == "5d5f0829a14d84f02b0cad5a86487055caeeaac68f1eabae28221b7e83eb2410"


def test_draws_cover_the_training_part_evenly(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8), 500).tobytes()
    (tmp_path / "ramp.txt").write_bytes(ramp)
    corpus = open_corpus(f"path:{tmp_path / 'ramp.txt'}", context=1, home=tmp_path / "home")
    values = corpus.micro_batch(0, 0, 0, 190_000).inputs[:, 0]
    counts = np.bincount(values, minlength=200)[:190]  # the last block of twenty, values 190 to 199, is validation
    assert counts.min() > 850
    assert counts.max() < 1150


def test_validation_batches_cover_the_validation_part_once(tmp_path: Path, text: bytes) -> None:
    corpus = _open(tmp_path)
    num_windows = (corpus.info().validation_tokens - 1) // CONTEXT
    windows = {bytes(corpus.validation_batch(index, 1).inputs[0].astype(np.uint8)) for index in range(num_windows)}
    assert len(windows) == num_windows
    validation = text[19 * (len(text) // 20) : 20 * (len(text) // 20)]
    assert all(window in validation for window in windows)
    np.testing.assert_array_equal(corpus.validation_batch(0, 4).inputs[1], corpus.validation_batch(1, 1).inputs[0])
    np.testing.assert_array_equal(corpus.validation_batch(num_windows, 1).inputs, corpus.validation_batch(0, 1).inputs)


def test_the_unigram_entropy_is_that_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"ab" * 500_000)
    assert _open(tmp_path).info().unigram_nats == pytest.approx(np.log(2), abs=1e-3)


def test_a_second_opening_reads_the_cache_and_a_damaged_cache_is_built_again(tmp_path: Path, text: bytes) -> None:
    first = _open(tmp_path)
    content = next((tmp_path / "home" / "corpora").glob("*.bin"))
    built = content.stat().st_mtime_ns
    _open(tmp_path)
    assert content.stat().st_mtime_ns == built
    damaged = bytearray(content.read_bytes())
    damaged[100] ^= 1
    content.write_bytes(damaged)
    np.testing.assert_array_equal(_open(tmp_path).micro_batch(0, 0, 0, 8).inputs, first.micro_batch(0, 0, 0, 8).inputs)
    assert content.read_bytes() != bytes(damaged)
    assert not list((tmp_path / "home" / "corpora").glob("build-*"))


def test_a_changed_file_is_read_again_and_refused_by_a_run_that_recorded_the_old_one(tmp_path: Path, text: bytes) -> None:
    old = _open(tmp_path).info().hash
    (tmp_path / "text.txt").write_bytes(text + b"more\n")
    assert _open(tmp_path).info().hash != old
    with pytest.raises(CorpusError, match="has changed"):
        open_corpus(f"path:{tmp_path / 'text.txt'}", context=CONTEXT, home=tmp_path / "home", expected_hash=old)


def _hash_in_process(path: str, home: str, queue: "multiprocessing.Queue[str]") -> None:
    queue.put(open_corpus(f"path:{path}", context=CONTEXT, home=Path(home)).info().hash)


def test_processes_that_build_the_same_cache_at_once_agree(tmp_path: Path, text: bytes) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    arguments = (str(tmp_path / "text.txt"), str(tmp_path / "home"), queue)
    processes = [context.Process(target=_hash_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    hashes = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert hashes == {hashlib.sha256(text).hexdigest()}


def test_a_folder_is_its_text_files_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "b" / "second.txt").write_bytes(b"second " * 200)
    (folder / "a.txt").write_bytes(b"first " * 200 + b"\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0" * 100)
    (folder / ".git" / "config").write_bytes(b"hidden")
    info = open_corpus(f"path:{folder}", context=CONTEXT, home=tmp_path / "home").info()
    assert info.hash == hashlib.sha256(b"first " * 200 + b"\n" + b"second " * 200 + b"\n").hexdigest()


@pytest.mark.parametrize("length", [0, 1, CONTEXT, CONTEXT + 1, 20 * CONTEXT])
def test_a_text_shorter_than_its_windows_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "text.txt").write_bytes(b"x" * length)
    with pytest.raises(CorpusError, match=r"is empty|use a longer text or a smaller context"):
        _open(tmp_path)


def test_the_shortest_text_that_fits_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"x" * 20 * (CONTEXT + 1))
    assert _open(tmp_path).validation_batch(0, 2).inputs.shape == (2, CONTEXT + 1)


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-of-this-name/notes.txt"])
def test_a_path_that_cannot_even_be_looked_at_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(CorpusError, match=r"cannot be read .*; give a text file or a folder"):
        open_corpus(f"path:{path}", context=CONTEXT, home=tmp_path / "home")


def test_missing_and_empty_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        open_corpus(f"path:{tmp_path / 'nothing.txt'}", context=8, home=tmp_path / "home")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no text file"):
        open_corpus(f"path:{tmp_path / 'empty'}", context=8, home=tmp_path / "home")


def test_a_home_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    with pytest.raises(CorpusError, match="could not be cached"):
        _open(tmp_path)


def test_a_model_that_does_not_fit_the_text_is_refused(tmp_path: Path, text: bytes) -> None:
    name = f"path:{tmp_path / 'text.txt'}"
    with pytest.raises(CorpusError, match="use at least 256"):
        open_corpus(name, context=8, vocab=100, home=tmp_path / "home")
    with pytest.raises(CorpusError, match="has no context"):
        open_corpus(name, context=None, home=tmp_path / "home")
    with pytest.raises(CorpusError, match="context=0"):
        open_corpus(name, context=0, home=tmp_path / "home")


def test_stdlib_is_the_source_text_of_python_itself(tmp_path: Path) -> None:
    corpus = open_corpus("stdlib", context=128, vocab=256, home=tmp_path)
    info = corpus.info()
    assert info.train_tokens > 5_000_000
    assert 2.5 < (info.unigram_nats or 0) < 4.0
    names = {path.name for path in stdlib_files()}
    assert {"argparse.py", "inspect.py"} <= names
    assert not any({"site-packages", "test", "idlelib"} & set(path.parts[-4:]) for path in stdlib_files())
    facts = json.loads(next((tmp_path / "corpora").glob("*.json")).read_text())
    assert facts["info"]["hash"] == info.hash
    assert open_corpus("stdlib", context=128, home=tmp_path).info() == info
