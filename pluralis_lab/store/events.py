"""What happened in a run, in order: an append-only SQLite table whose `seq` has no gaps."""

import json
import sqlite3
import time as clock
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pluralis_lab.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, worker TEXT, round INTEGER, body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind, seq);
"""


@dataclass(frozen=True)
class Event:
    """One row: `seq` counts from 1 without gaps, `time` is Unix seconds (virtual seconds in a simulation)."""

    seq: int
    time: float
    kind: str
    worker: str | None = None
    round: int | None = None
    body: dict[str, Any] = field(default_factory=dict)


class EventWriter:
    """The single writer of a run's events.

    Raises
    ------
    StoreError : another process writes this run, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # One connection, used from one thread at a time (the supervisor's loop, or the thread that closes epochs before it).
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._next = int(self._db.execute("SELECT coalesce(max(seq), 0) + 1 FROM events").fetchone()[0])
        except sqlite3.Error as error:
            raise StoreError(f"{path.name} cannot be opened for writing: {error}") from error

    def append(
        self,
        kind: str,
        worker: str | None = None,
        round: int | None = None,
        body: dict[str, Any] | None = None,
        *,
        time: float | None = None,
    ) -> int:
        """Write one event and return its `seq`.

        Raises StoreError, and writes nothing, when the disk is full, the row exists already, or the body has no JSON form.
        """
        return self.append_all([(kind, worker, round, body or {}, clock.time() if time is None else time)])

    def append_all(self, rows: Sequence[tuple[str, str | None, int | None, dict[str, Any], float]]) -> int:
        """Write several events (kind, worker, round, body, time) in one transaction and return the last `seq`."""
        seq = self._next
        texts = [_to_json(kind, body) for kind, _, _, body, _ in rows]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for (kind, worker, round_, _, at), text in zip(rows, texts, strict=True):
                self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", (seq, at, kind, worker, round_, text))
                seq += 1
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(f"{self.path.name}: {error}; is the disk full, or does another process write this run?") from error
        self._next = seq
        return seq - 1

    def close(self) -> None:
        self._db.close()


def _to_json(kind: str, body: dict[str, Any]) -> str:
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the body of a {kind!r} event cannot be kept ({error}): {str(body)[:200]}") from None


class EventReader:
    """Reads a run's events from any process, while it is being written.

    The connection is opened on first use and belongs to the thread that opened it: make one reader a thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    def read(self, *, since: int = 0, kinds: Iterable[str] | None = None, limit: int | None = None) -> list[Event]:
        """Return the events with ``seq > since``, oldest first, optionally of some `kinds` and at most `limit`."""
        wanted = None if kinds is None else list(kinds)
        query = "SELECT seq, time, kind, worker, round, body FROM events WHERE seq > ?"
        if wanted is not None:
            query += f" AND kind IN ({','.join('?' * len(wanted))})"
        query += " ORDER BY seq" + ("" if limit is None else f" LIMIT {int(limit)}")
        rows = self._query(query, [since, *(wanted or [])])
        return [Event(seq, at, kind, worker, round_, json.loads(body)) for seq, at, kind, worker, round_, body in rows]

    def last_seq(self) -> int:
        """Return the `seq` of the newest event, 0 when there is none."""
        rows = self._query("SELECT coalesce(max(seq), 0) FROM events", [])
        return int(rows[0][0]) if rows else 0

    def last(self, kind: str) -> Event | None:
        """Return the newest event of `kind`."""
        query = "SELECT seq, time, kind, worker, round, body FROM events WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        for seq, at, kind_, worker, round_, body in self._query(query, [kind]):
            return Event(seq, at, kind_, worker, round_, json.loads(body))
        return None

    def newest(self, kind: str, limit: int) -> list[Event]:
        """Return the newest `limit` events of `kind`, oldest first."""
        query = "SELECT seq, time, kind, worker, round, body FROM events WHERE kind = ? ORDER BY seq DESC LIMIT ?"
        rows = reversed(self._query(query, [kind, limit]))
        return [Event(seq, at, kind_, worker, round_, json.loads(body)) for seq, at, kind_, worker, round_, body in rows]

    def sample(self, kind: str, limit: int) -> list[Event]:
        """Return at most about `limit` events of `kind`, oldest first: all, or evenly chosen ones and the newest."""
        rows = self._query("SELECT seq FROM events WHERE kind = ? ORDER BY seq", [kind])  # answered from the index alone
        stride = -(-len(rows) // limit)
        if stride <= 1:
            return self.read(kinds=[kind])
        chosen = [int(seq) for (seq,) in [*rows[::stride], rows[-1]]]
        found: dict[int, Event] = {}
        for start in range(0, len(chosen), 500):
            part = chosen[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT seq, time, kind, worker, round, body FROM events WHERE seq IN ({marks}) ORDER BY seq"
            for seq, at, kind_, worker, round_, body in self._query(query, part):
                found[seq] = Event(seq, at, kind_, worker, round_, json.loads(body))
        return list(found.values())

    def _query(self, query: str, values: list[Any]) -> list[Any]:
        if self._db is None and not self.path.exists():
            return []
        try:
            if self._db is None:
                self._db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return []  # the writer has made the file and not yet the table
            raise StoreError(f"{self.path.name} cannot be read: {error}") from error

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
