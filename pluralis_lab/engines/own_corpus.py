"""A corpus that a head worker brings along: the worker's own folder says where it is, the run learns its name, hash and size."""

import json
from pathlib import Path
from typing import Any

from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.errors import CorpusError, RunError
from pluralis_lab.spec import RunSpec
from pluralis_lab.store.files import write_atomic

FILE = "own_data.json"
SHOWN = ("name", "hash", "train_tokens")


def check_own_data(spec: RunSpec, stage: int | None) -> None:
    """Raise RunError unless heads of this run can bring data and `stage`, if it is given, is theirs."""
    if not spec.own_data:
        raise RunError("data=: this run draws nothing from what its heads bring (own_data=0.0); launch it with own_data=0.5, say")
    if stage not in (None, 0):
        raise RunError(f"data= with stage={stage}: only workers of stage 0 draw; leave stage out")


def bring(spec: RunSpec, source: str, *, vocab: int, home: Path) -> dict[str, Any]:
    """Read the corpus that `source` names, once, and return what the run is told of it.

    Raises CorpusError when it cannot be read, is too short, or has other token ids than the model.
    """
    info = open_corpus(source, context=spec.context, home=home, vocab=vocab).info()
    if info.kind != "tokens":
        raise CorpusError(f"data={source!r} holds {info.kind}; bring a text: data='path:FILE_OR_FOLDER'")
    name = Path(source.removeprefix("path:")).name or source  # where it lies is nobody else's business
    return {"name": name[:80], "hash": info.hash, "train_tokens": info.train_tokens}


def keep(folder: Path, source: str) -> None:
    """Note in the worker's folder where its corpus is."""
    absolute = f"path:{Path(source.removeprefix('path:')).expanduser().absolute()}" if source.startswith("path:") else source
    write_atomic(folder / FILE, json.dumps({"source": absolute}).encode(), mode=0o600)


def open_own(folder: Path, spec: RunSpec, facts: dict[str, Any] | None, *, vocab: int, home: Path) -> Corpus | None:
    """Return the corpus that the worker of `folder` has brought, None when it has brought none.

    facts : what the run was told of it. Raises CorpusError when the corpus is another one now.
    """
    if facts is None:
        return None
    source = json.loads((folder / FILE).read_bytes())["source"]
    return open_corpus(source, context=spec.context, home=home, vocab=vocab, expected_hash=facts["hash"])
