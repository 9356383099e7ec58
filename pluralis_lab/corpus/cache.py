"""The cached form of a text: one file of bytes, training part first, and a small JSON beside it.

Blocks of 64 KiB (less for a small text) are dealt out: every twentieth goes to validation, so that both parts see the whole
range of the text. Files are replaced atomically and their hash is checked on opening, so that two processes may build
the same cache at once and a damaged one is built again.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pluralis_lab.corpus.batches import CorpusInfo
from pluralis_lab.corpus.readers import Reader
from pluralis_lab.errors import CorpusError

BLOCK_BYTES = 64 * 1024
VALIDATION_EVERY = 20
VOCAB = 256


def cached_text(folder: Path, name: str, open_reader: Callable[[], Reader]) -> tuple[Path, CorpusInfo]:
    """Return the cached file of a text and its facts, reading the source only where no sound copy exists.

    Raises CorpusError where the source is empty or cannot be read, and where the cache cannot be written.
    """
    reader = open_reader()
    content, facts = folder / f"{reader.key}.bin", folder / f"{reader.key}.json"
    known = _read_facts(content, facts)
    if known is not None:
        return content, CorpusInfo(**{**asdict(known), "name": name})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as build:
            raw, split = Path(build) / "raw", Path(build) / "split"
            content_hash = _write_raw(raw, reader.chunks)
            if raw.stat().st_size == 0:
                raise CorpusError(f'data="{name}" is empty; use a source with text in it')
            info, split_hash = _write_split(raw, split, name, content_hash)
            record = Path(build) / "facts"
            record.write_text(json.dumps({"info": asdict(info), "split_hash": split_hash}))
            os.replace(split, content)
            os.replace(record, facts)
    except OSError as error:
        raise CorpusError(
            f'data="{name}" could not be cached in {folder} ({error}); check its permissions and free space'
        ) from error
    return content, info


def _read_facts(content: Path, facts: Path) -> CorpusInfo | None:
    """Return the facts of a sound cached copy, None where there is none or it is damaged."""
    try:
        record = json.loads(facts.read_text())
        with content.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != record["split_hash"]:
                return None
        return CorpusInfo(**record["info"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_raw(path: Path, chunks: Iterator[bytes]) -> str:
    whole = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in chunks:
            whole.update(chunk)
            file.write(chunk)
    return whole.hexdigest()


def _write_split(raw: Path, split: Path, name: str, content_hash: str) -> tuple[CorpusInfo, str]:
    """Write the training blocks of `raw`, then its validation blocks; return the facts and the hash of what was written."""
    tokens: NDArray[np.uint8] = np.memmap(raw, dtype=np.uint8, mode="r")
    block = max(1, min(BLOCK_BYTES, len(tokens) // VALIDATION_EVERY))
    starts = range(0, len(tokens), block)
    written = hashlib.sha256()
    counts = {False: np.zeros(VOCAB, dtype=np.int64), True: np.zeros(VOCAB, dtype=np.int64)}
    with split.open("wb") as file:
        for validation in (False, True):
            for number, start in enumerate(starts):
                if (number % VALIDATION_EVERY == VALIDATION_EVERY - 1) is validation:
                    part = tokens[start : start + block]
                    counts[validation] += np.bincount(part, minlength=VOCAB)
                    file.write(part.tobytes())
                    written.update(part.tobytes())
    info = CorpusInfo(
        name=name,
        kind="tokens",
        hash=content_hash,
        vocab=VOCAB,
        train_tokens=int(counts[False].sum()),
        validation_tokens=int(counts[True].sum()),
        unigram_nats=unigram_nats(counts[False], counts[True]),
        num_features=0,
    )
    return info, written.hexdigest()


def unigram_nats(train: NDArray[np.int64], validation: NDArray[np.int64]) -> float:
    """Return the cross-entropy, in nats a token, of validation counts under add-one-smoothed training frequencies ``[vocab]``."""
    if validation.sum() == 0:
        return math.log(len(train))
    frequencies = (train + 1) / (train.sum() + len(train))
    return float(-(validation * np.log(frequencies)).sum() / validation.sum())
