"""A home that the tests of a module share: making accounts and starting a chain daemon take seconds."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pluralis_lab as pl


@contextmanager
def shared_home() -> Iterator[Path]:
    """Make a home for headless runs; its path is short, as a socket's must be, and its chain daemon is ended afterwards."""
    path = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLURALIS_LAB_HOME", str(path))
        patch.setenv("PLURALIS_LAB_HEADLESS", "1")
        yield path
        pl.Chain.embedded(home=path).stop()
    shutil.rmtree(path)
