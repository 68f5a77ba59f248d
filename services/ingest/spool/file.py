"""The spool's file: SQLite in WAL mode, used by one thread of one process."""

import contextlib
import fcntl
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from libs.common.kafka import Record

EVENT_HEADERS = (("content-type", b"application/cloudevents+json; charset=utf-8"),)
"""Of every event's record, so the file does not keep them."""

NAME = "events.db"
RESERVE_BYTES = 16_777_216
"""Kept free in a file of its own: on a full disk even a deletion needs some megabytes, until the next checkpoint."""
SHRINK_BYTES = 16_777_216
READ_BYTES = 4_194_304
ROW_BYTES = 64
"""What a row takes beside its key and value, roughly."""

_TABLE = """
create table if not exists event (
    id integer primary key, stored real not null, topic blob not null, key blob not null, value blob not null,
    checksum integer not null
)
"""
_COLUMNS = "id, stored, topic, key, value, checksum"


class SpoolError(Exception):
    """The events are not in the spool; the text says why."""


class Row(NamedTuple):
    """One event that waits. `stored`: seconds since 1970."""

    id: int
    stored: float
    record: Record


@dataclass(frozen=True, slots=True)
class Figures:
    """What waits. `oldest`: seconds since 1970, None when nothing waits."""

    events: int = 0
    bytes: int = 0
    oldest: float | None = None


def size_of(record: Record) -> int:
    """What it counts for the limit."""
    return len(record.key) + len(record.value) + ROW_BYTES


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is broken, so that trying again cannot help."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SpoolFile:
    """Open for one owner. Every method may raise sqlite3.Error or OSError; then nothing of the call was done."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._reserve = folder / "reserve"
        self._lock = (folder / "lock").open("w")
        try:
            self._take_lock()
            self._connect()
        except BaseException:
            self._lock.close()
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SpoolError(f"another process uses the spool {self._folder}") from None

    def _connect(self) -> None:
        self._db = sqlite3.connect(self._folder / NAME, isolation_level=None, timeout=1)
        try:
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.execute("pragma wal_autocheckpoint = 500")
            self._db.execute("pragma cell_size_check = on")
            self._db.execute(_TABLE)
            # Reads a page or more of every row, so that broken pages are found now.
            sums = "select count(*), coalesce(sum(length(key) + length(value)), 0) from event"
            events, size = self._db.execute(sums).fetchone()
            self._events: int = events
            self._bytes: int = size + ROW_BYTES * events
        except BaseException:
            self._db.close()
            raise

    def figures(self) -> Figures:
        oldest = self._db.execute("select stored from event order by id limit 1").fetchone()
        return Figures(self._events, self._bytes, oldest[0] if oldest else None)

    def append(self, records: Iterable[Record], now: float) -> None:
        """On the disk when it returns: the commit of a WAL with synchronous = full ends with fsync."""
        self._keep_reserve()
        rows = [
            (now, record.topic.encode(), record.key, record.value, _checksum(record.topic.encode(), record))
            for record in records
        ]
        with self._transaction():
            self._db.executemany("insert into event (stored, topic, key, value, checksum) values (?, ?, ?, ?, ?)", rows)
        self._events += len(rows)
        self._bytes += sum(len(row[2]) + len(row[3]) + ROW_BYTES for row in rows)

    def read(self, after: int, limit: int) -> tuple[list[Row], list[int]]:
        """Up to `limit` rows and about 4 MiB beyond the id `after`, and the ids of damaged rows among them."""
        rows: list[Row] = []
        damaged: list[int] = []
        size = 0
        query = f"select {_COLUMNS} from event where id > ? order by id limit ?"
        for found in self._db.execute(query, (after, limit)):
            row = verified(found)
            if row is None:
                damaged.append(found[0])
                continue
            rows.append(row)
            size += len(row.record.value)
            if size >= READ_BYTES:
                break
        return rows, damaged

    def delete(self, ids: Sequence[int]) -> int:
        """Returns how many there were. A file that has become empty gives its room back."""
        try:
            deleted = self._delete(ids)
        except sqlite3.OperationalError:
            self._reserve.unlink(missing_ok=True)
            deleted = self._delete(ids)
        if self._events == 0 and (self._folder / NAME).stat().st_size > SHRINK_BYTES:
            self._db.close()
            for path in files_of(self._folder / NAME):
                path.unlink(missing_ok=True)
            self._connect()
        return deleted

    def _delete(self, ids: Sequence[int]) -> int:
        with self._transaction():
            gone: list[int] = [
                size
                for number in ids
                for (size,) in self._db.execute(
                    "delete from event where id = ? returning length(key) + length(value)", (number,)
                ).fetchall()
            ]
        self._events -= len(gone)
        self._bytes -= sum(gone) + ROW_BYTES * len(gone)
        return len(gone)

    def check(self) -> None:
        """Raises unless something can be written."""
        self._keep_reserve()
        with self._transaction():
            self._db.execute("pragma user_version = 1")

    def rescue(self, damaged: Path) -> int:
        """Take over what can still be read from a damaged file, from both its ends; returns how many events."""
        before = self._events
        last = 0
        with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as source:
            for order in ("asc", "desc"):
                with contextlib.suppress(sqlite3.Error):
                    query = f"select {_COLUMNS} from event where id > ? order by id {order}"
                    last = max(last, self._take_over(source.execute(query, (last,))))
        return self._events - before

    def _take_over(self, cursor: sqlite3.Cursor) -> int:
        last = 0
        broken = False
        while not broken:
            rows: list[Row] = []
            try:
                while len(rows) < 200 and (found := cursor.fetchone()) is not None:
                    if row := verified(found):
                        rows.append(row)
                broken = len(rows) < 200
            except sqlite3.Error:
                broken = True
            with self._transaction():
                for row in rows:
                    topic = row.record.topic.encode()
                    values = (row.id, row.stored, topic, row.record.key, row.record.value, _checksum(topic, row.record))
                    self._db.execute(f"insert into event ({_COLUMNS}) values (?, ?, ?, ?, ?, ?)", values)
            self._events += len(rows)
            self._bytes += sum(size_of(row.record) for row in rows)
            last = max(last, *(row.id for row in rows), 0)
        return last

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("rollback")
            raise

    def _keep_reserve(self) -> None:
        if self._reserve.exists():
            return
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        try:
            self._db.close()
        finally:
            self._lock.close()


def _checksum(topic: bytes, record: Record) -> int:
    return zlib.crc32(record.value, zlib.crc32(record.key, zlib.crc32(topic)))


def scan(folder: Path) -> Iterator[Row | None]:
    """Every event of a spool, the oldest first, also while a process uses it; None for a damaged one.

    Raises sqlite3.Error when there is no file or it cannot be read.
    """
    uri = f"{(folder.absolute() / NAME).as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        yield from map(verified, db.execute(f"select {_COLUMNS} from event order by id"))


def verified(found: tuple[Any, ...]) -> Row | None:
    """The row of these columns; None when it is not what was written."""
    number, stored, topic, key, value, checksum = found
    if not (isinstance(stored, float) and all(isinstance(part, bytes) for part in (topic, key, value))):
        return None
    try:
        record = Record(topic.decode(), key, value, EVENT_HEADERS)
    except UnicodeDecodeError:
        return None
    return Row(number, stored, record) if _checksum(topic, record) == checksum else None


def files_of(path: Path) -> list[Path]:
    """The database and what SQLite keeps beside it."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def set_aside(folder: Path) -> Path:
    """Rename a damaged file; returns where it lies now."""
    target = folder / f"{NAME}.damaged-{time.time_ns()}"
    for source, path in zip(files_of(folder / NAME), files_of(target), strict=True):
        if source.exists():
            source.rename(path)
    return target
