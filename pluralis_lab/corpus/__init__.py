"""Training data: named sources, cached and memory-mapped, drawn as pure functions of (seed, round, index).

``check_source`` reads nothing; ``open_corpus`` reads, caches and hashes. The rest loads numpy on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pluralis_lab.corpus.sources import KNOWN_SOURCES, Source, check_source

if TYPE_CHECKING:
    from pluralis_lab.corpus.batches import Corpus, CorpusInfo, MicroBatch
    from pluralis_lab.corpus.opening import open_corpus

__all__ = ["KNOWN_SOURCES", "Corpus", "CorpusInfo", "MicroBatch", "Source", "check_source", "open_corpus"]

_LAZY = {"Corpus": "batches", "CorpusInfo": "batches", "MicroBatch": "batches", "open_corpus": "opening"}


def __getattr__(name: str) -> Any:
    """Load the part of this package that needs numpy when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
