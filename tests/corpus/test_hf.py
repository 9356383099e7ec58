"""Data sets of the `datasets` library, read from a local parquet file through the code that reads a remote one."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pluralis_lab.corpus import open_corpus, readers
from pluralis_lab.errors import CorpusError

TEXTS = [f"story {number}: once upon a time, été, there was a {number}" for number in range(400)]
WHOLE = "".join(f"{text}\n" for text in TEXTS).encode()


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "train.parquet"
    path.parent.mkdir()
    pd.DataFrame({"text": TEXTS, "id": range(len(TEXTS))}).to_parquet(path)
    return path


@pytest.mark.parametrize("form", ["hf:parquet:{file}", "hf:{file}", "hf:{folder}"])
def test_the_text_column_is_streamed(tmp_path: Path, parquet: Path, form: str) -> None:
    name = form.format(file=parquet, folder=parquet.parent)
    info = open_corpus(name, context=16, home=tmp_path / "home").info()
    assert info.hash == hashlib.sha256(WHOLE).hexdigest()
    assert info.train_tokens + info.validation_tokens == len(WHOLE)


def test_reading_stops_at_the_budget(tmp_path: Path, parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "HF_BUDGET_BYTES", 5000)
    info = open_corpus(f"hf:{parquet}", context=16, home=tmp_path / "home").info()
    assert info.hash == hashlib.sha256(WHOLE[:5000]).hexdigest()


def test_a_data_set_without_text_is_refused_with_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "numbers.parquet"
    pd.DataFrame({"label": [1, 2], "value": [3.0, 4.0]}).to_parquet(path)
    with pytest.raises(CorpusError, match=r"\['label', 'value'\], but no column \"text\""):
        open_corpus(f"hf:{path}", context=16, home=tmp_path / "home")


def test_what_is_not_there_or_not_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        open_corpus(f"hf:parquet:{tmp_path / 'nothing.parquet'}", context=16, home=tmp_path / "home")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"holds no \.parquet file"):
        open_corpus(f"hf:{tmp_path / 'empty'}", context=16, home=tmp_path / "home")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"this is not parquet" * 10)
    with pytest.raises(CorpusError, match="could not be read"):
        open_corpus(f"hf:{broken}", context=16, home=tmp_path / "home")


def test_a_name_that_cannot_be_reached_is_one_error_with_the_way_round(tmp_path: Path) -> None:
    """In a process of its own, because the library reads its offline switch when it is imported."""
    code = (
        "import sys; from pathlib import Path\n"
        "from pluralis_lab.corpus import open_corpus; from pluralis_lab.errors import CorpusError\n"
        "try: open_corpus('hf:nobody/no-such-data', context=16, home=Path(sys.argv[1]))\n"
        "except CorpusError as error: print(error)"
    )
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith('data="hf:nobody/no-such-data" could not be read')
    assert 'use "hf:PATH" or "path:PATH"' in done.stdout
    assert not list((tmp_path / "home" / "corpora").iterdir())
