"""Small files: the old content or the new, never half of it, also when the disk is full or the writer dies."""

import os
import subprocess
import sys

import pytest

from pluralis_lab.store.files import write_atomic

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pluralis_lab.store.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"new" * 1000)
except OSError as error:
    print(error.errno)
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "run.json"
    write_atomic(path, b"old")
    out = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.strip() == "27"  # EFBIG: the limit stands for a full disk
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_replaces_the_old_one_with_its_mode(tmp_path):
    path = tmp_path / "key"
    write_atomic(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_open_keeps_its_old_content(tmp_path):
    path = tmp_path / "run.json"
    write_atomic(path, b"old")
    with open(path, "rb") as reader:
        write_atomic(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_failing_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
