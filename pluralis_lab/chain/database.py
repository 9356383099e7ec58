"""The embedded chain's key-value store: one SQLite file, one disk transaction a block."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eth.db.backends.base import BaseDB


class BlockDatabase(BaseDB):
    """Keys and values of py-evm in one SQLite table.

    Writes are possible only inside `transaction()`, and all of one transaction reach the disk together or not at all, also when
    the process is killed. py-evm writes a block in many small batches; this is what makes a block atomic. Not safe for use by two
    threads at once: `Node` holds a lock.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        # NORMAL with a write-ahead log: a killed process loses nothing; a power cut may lose the last blocks, never half of one.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        self._in_transaction = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit every write inside the block together, or none of them when it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._in_transaction = True
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        else:
            self._connection.execute("COMMIT")
        finally:
            self._in_transaction = False

    def __getitem__(self, key: bytes) -> bytes:
        row = self._connection.execute("SELECT value FROM pairs WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        value: bytes = row[0]
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._require_transaction()
        self._connection.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", (key, value))

    def __delitem__(self, key: bytes) -> None:
        self._require_transaction()
        if self._connection.execute("DELETE FROM pairs WHERE key = ?", (key,)).rowcount == 0:
            raise KeyError(key)

    def _exists(self, key: bytes) -> bool:
        return self._connection.execute("SELECT 1 FROM pairs WHERE key = ?", (key,)).fetchone() is not None

    def _require_transaction(self) -> None:
        if not self._in_transaction:
            raise RuntimeError("a write to the chain's database outside a block's transaction")

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
