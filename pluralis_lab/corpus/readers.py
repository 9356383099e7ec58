"""Readers of raw text: each source as a stream of byte chunks, and a key that changes when the source does."""

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pluralis_lab.corpus.sources import Source
from pluralis_lab.errors import CorpusError

HF_BUDGET_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
# Left out: what is installed beside the library, its tests, generated tables of one build, and demonstrations.
_STDLIB_EXCLUDED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "__pycache__",
}


@dataclass(frozen=True)
class Reader:
    """A raw text source: `chunks` streams its bytes, `key` (hexadecimal) names its cached copy."""

    key: str
    chunks: Iterator[bytes]


def open_reader(source: Source, name: str) -> Reader:
    """Return the reader of a text `source`, called `name` in errors. Raises CorpusError where there is nothing to read."""
    if source.kind == "stdlib":
        files = stdlib_files()
        return Reader(_key("stdlib", sys.version, [str(path) for path in files]), _read_files(files))
    if source.kind == "path":
        try:
            files = _files_of(Path(source.argument).expanduser(), name)
            stamps = [_stamp(path) for path in files]
        except (OSError, RuntimeError) as error:  # RuntimeError: the home of a user that there is not
            raise CorpusError(f'data="{name}" cannot be read ({error}); give a text file or a folder of text files') from None
        return Reader(_key("path", stamps), _read_files(files))
    return _open_hf(source.argument, name)


def stdlib_files() -> list[Path]:
    """Return the Python sources of the running interpreter's standard library, sorted by their path inside it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _STDLIB_EXCLUDED]  # site-packages can hold 10,000 files: never enter it
        for name in names:
            if name.endswith(".py") and not name.startswith("_sysconfigdata") and name not in _STDLIB_EXCLUDED:
                path = Path(folder, name)
                found[path.relative_to(root).as_posix()] = path
    return [found[name] for name in sorted(found)]


def _files_of(path: Path, name: str) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    if not path.exists():
        raise CorpusError(f'data="{name}": {path} does not exist; give a text file or a folder of text files')
    inside = {
        file.relative_to(path).as_posix(): file.resolve()
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts) and not _is_binary(file)
    }
    if not inside:
        raise CorpusError(f'data="{name}": the folder {path} holds no text file; put some there or name another folder')
    return [inside[inner] for inner in sorted(inside)]


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" in file.read(8192)


def _read_files(files: list[Path]) -> Iterator[bytes]:
    for path in files:
        last = b""
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
                last = chunk
        if last and not last.endswith(b"\n"):
            yield b"\n"


def _open_hf(argument: str, name: str) -> Reader:
    """Open a data set of the `datasets` library; ``parquet:PATH`` and a local path go through the same streaming code."""
    builder, _, rest = argument.partition(":")
    pattern = rest if builder == "parquet" and rest else argument
    local = Path(pattern).expanduser()
    if local.exists():
        files = [local] if local.is_file() else sorted(local.rglob("*.parquet"))
        if not files:
            raise CorpusError(f'data="{name}": the folder {local} holds no .parquet file; name a folder or file that does')
        stamps = [_stamp(path.resolve()) for path in files]
        return Reader(_key("hf-local", HF_BUDGET_BYTES, stamps), _read_dataset("parquet", [str(path) for path in files], name))
    if builder == "parquet" and rest:
        raise CorpusError(f'data="{name}": {local} does not exist; give a .parquet file or a folder of them')
    return Reader(_key("hf", HF_BUDGET_BYTES, argument), _read_dataset(argument, None, name))


def _read_dataset(builder: str, data_files: list[str] | None, name: str) -> Iterator[bytes]:
    import datasets  # imported here: costs seconds, and only this source needs it

    try:
        rows: Any = datasets.load_dataset(builder, data_files=data_files, split="train", streaming=True)
        taken = 0
        for row in rows:
            if "text" not in row:
                raise CorpusError(f'data="{name}" has the columns {sorted(row)}, but no column "text"; use a data set with one')
            text = str(row["text"]).encode("utf-8") + b"\n"
            yield text[: HF_BUDGET_BYTES - taken]
            taken += len(text)
            if taken >= HF_BUDGET_BYTES:
                return
    except CorpusError:
        raise
    except Exception as error:  # the library raises many kinds, from parsing to network: all mean that the data cannot be read
        reason = " ".join(str(error).split())[:300]
        raise CorpusError(
            f'data="{name}" could not be read ({type(error).__name__}: {reason}); check the name and the network, '
            'or download it and use "hf:PATH" or "path:PATH"'
        ) from error


def _stamp(path: Path) -> list[str | int]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()[:32]
