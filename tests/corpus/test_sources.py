"""Names of sources: which are known, and what an unknown one is told."""

import subprocess
import sys

import pytest

from pluralis_lab.corpus import Source, check_source
from pluralis_lab.errors import CorpusError


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("stdlib", Source("stdlib")),
        ("digits", Source("digits")),
        ("path:a/b.txt", Source("path", "a/b.txt")),
        ("hf:roneneldan/TinyStories", Source("hf", "roneneldan/TinyStories")),
        ("hf:parquet:x.parquet", Source("hf", "parquet:x.parquet")),
    ],
)
def test_known_sources_parse(name: str, source: Source) -> None:
    assert check_source(name) == source


@pytest.mark.parametrize("name", ["", "imagenet", "stdlib:x", "digits:", "path", "hf", "s3:bucket", "PATH:x"])
def test_an_unknown_source_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(CorpusError) as refusal:
        check_source(name)
    assert f'data="{name}"' in str(refusal.value)
    assert '"stdlib", "digits", "path:FILE_OR_FOLDER", "hf:NAME"' in str(refusal.value)


@pytest.mark.parametrize("name", ["path:", "hf:", "path:  "])
def test_a_source_that_names_nothing_is_refused(name: str) -> None:
    with pytest.raises(CorpusError, match="nothing after the colon"):
        check_source(name)


def test_checking_a_name_loads_no_numpy() -> None:
    code = "import sys; from pluralis_lab.corpus import check_source; check_source('stdlib'); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
