"""Checkpoints reach the disk in order, the small ones at once; a full disk is told either way. The files are real."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from pluralis_lab.engines.swarm.checkpoint_writer import CheckpointWriter
from pluralis_lab.store.checkpoints import WRITTEN_AT_ONCE_BYTES, CheckpointFolder
from pluralis_lab.worker import Store

SMALL, LARGE = b"s" * 100, b"l" * (WRITTEN_AT_ONCE_BYTES + 1)


def store(version: int, state: bytes) -> Store:
    return Store(version, state, hashlib.sha256(state).hexdigest())


class Told:
    """What the writer says."""

    def __init__(self, folder: Path) -> None:
        self.stored: list[tuple[int, int]] = []
        self.errors: list[OSError] = []
        self.writer = CheckpointWriter(
            CheckpointFolder(folder, keep=9),
            on_stored=lambda kept, size_bytes: self.stored.append((kept.version, size_bytes)),
            on_failed=self.errors.append,
        )


def test_a_small_one_is_there_at_once_and_large_ones_come_in_order(tmp_path: Path) -> None:
    told = Told(tmp_path)

    async def main() -> None:
        told.writer.write(store(1, SMALL))
        assert told.stored == [(1, len(SMALL))]
        for version in (2, 3, 4):
            told.writer.write(store(version, LARGE))
        assert told.stored == [(1, len(SMALL))], "a large one is written on the event loop"
        await told.writer.finish()

    asyncio.run(main())
    assert told.stored == [(1, len(SMALL)), *((version, len(LARGE)) for version in (2, 3, 4))]
    assert told.writer.folder.load(4) == (LARGE, hashlib.sha256(LARGE).hexdigest())
    assert told.errors == []


def test_where_nothing_can_be_written_it_is_told_and_not_counted_as_stored(tmp_path: Path) -> None:
    told = Told(tmp_path / "gone")

    async def main() -> None:
        with pytest.raises(OSError, match="gone"):
            told.writer.write(store(1, SMALL))
        told.writer.write(store(2, LARGE))
        await told.writer.finish()

    asyncio.run(main())
    assert told.stored == []
    [error] = told.errors
    assert "gone" in str(error)
