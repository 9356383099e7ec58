"""From a source's name to a corpus that can be drawn from."""

from pathlib import Path

from pluralis_lab.corpus.batches import Corpus
from pluralis_lab.corpus.cache import cached_text
from pluralis_lab.corpus.readers import open_reader
from pluralis_lab.corpus.sources import check_source
from pluralis_lab.corpus.tokens import TokenCorpus
from pluralis_lab.corpus.vectors import load_digits
from pluralis_lab.errors import CorpusError


def open_corpus(
    source: str, *, context: int | None, home: Path, vocab: int | None = None, expected_hash: str | None = None
) -> Corpus:
    """Return the corpus that `source` names, reading and caching it under ``home/corpora`` where that is not done yet.

    Parameters
    ----------
    source : "stdlib", "digits", "path:FILE_OR_FOLDER" or "hf:NAME"
    context : tokens that a window of a text predicts; None for vectors
    home : ``$PLURALIS_LAB_HOME``
    vocab : token ids that the model knows; fewer than the corpus uses is an error
    expected_hash : the hash that the run recorded; another content is an error

    Raises CorpusError for an unknown source, a missing or empty one, one shorter than a window, and any mismatch above.
    """
    parsed = check_source(source)
    corpus: Corpus
    if parsed.holds == "vectors":
        if context is not None:
            raise CorpusError(f'data="{source}" holds vectors, but the model reads text (context={context}); use "stdlib"')
        corpus = load_digits()
    else:
        if context is None:
            raise CorpusError(f'data="{source}" holds text, but the model has no context; use "digits" or pl.GPT')
        content, facts = cached_text(home / "corpora", source, lambda: open_reader(parsed, source))
        corpus = TokenCorpus(content, facts, context=context)
    info = corpus.info()
    if vocab is not None and vocab < info.vocab:
        what = "token ids" if info.kind == "tokens" else "classes"
        raise CorpusError(f'data="{source}" uses {info.vocab} {what}, but the model has {vocab}; use at least {info.vocab}')
    if expected_hash is not None and expected_hash != info.hash:
        raise CorpusError(
            f'data="{source}" has changed: its hash is {info.hash[:12]}…, the run recorded {expected_hash[:12]}…; '
            "restore the data, or start a new run"
        )
    return corpus
