"""The spool as the rest of ingest sees it: calls from the event loop, one thread that writes, one fsync for many."""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from libs.common.kafka import Record
from services.ingest.spool.file import (
    Figures,
    Row,
    SpoolError,
    SpoolFile,
    is_damage,
    set_aside,
    size_of,
)

log = structlog.get_logger(__name__)
T = TypeVar("T")

SERVICE = "ingest"
GROUP_CALLS, GROUP_BYTES = 256, 2_097_152
"""Most that share a commit."""
PENDING_BYTES = 33_554_432
"""Most that may wait for the disk in memory."""
APPEND_SECONDS = 2.0
RETRY_SECONDS = 1.0

EVENTS = Gauge("superfan_spool_events", "Events that wait in the spool", ["service"])
BYTES = Gauge("superfan_spool_bytes", "Bytes of the events that wait in the spool", ["service"])
LIMIT_BYTES = Gauge("superfan_spool_limit_bytes", "Bytes that may wait in the spool at most", ["service"])
OLDEST = Gauge(
    "superfan_spool_oldest_seconds", "How long the oldest event has waited in the spool; 0 = none", ["service"]
)
APPENDED = Counter("superfan_spool_appended_total", "Events written to the spool", ["service"])
DRAINED = Counter("superfan_spool_drained_total", "Events of the spool that Kafka has acknowledged", ["service"])
SKIPPED = Counter("superfan_spool_skipped_total", "Damaged events of the spool that were thrown away", ["service"])
SET_ASIDE = Counter("superfan_spool_set_aside_total", "Damaged spool files that were renamed", ["service"])


@dataclass(frozen=True, slots=True)
class _Call:
    """Either `records` to append, or `work` to do."""

    future: asyncio.Future[Any]
    records: Sequence[Record] = ()
    work: Callable[[SpoolFile], Any] | None = None
    size: int = 0


class Spool:
    """Start, append, read, delete, stop. While its disk cannot be written `problem` says so, and it tries again."""

    def __init__(self, folder: Path, *, limit_bytes: int, limit_seconds: float) -> None:
        self.figures = Figures()
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._limit_seconds = limit_seconds
        self._pending_bytes = 0
        self._failure: str | None = "not open yet"
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._file: SpoolFile | None = None
        self._opened = threading.Event()

    async def start(self) -> None:
        """Never fails. Returns when the file has been opened or cannot be, after 3 seconds at most."""
        self._loop = asyncio.get_running_loop()
        LIMIT_BYTES.labels(SERVICE).set(self._limit_bytes)
        OLDEST.labels(SERVICE).set_function(self._oldest_seconds)
        self._thread.start()
        await asyncio.to_thread(self._opened.wait, 3)

    async def stop(self) -> None:
        """Finish what has been asked for, then close."""
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def problem(self) -> str | None:
        """Why nothing can be appended now, or None."""
        return self._failure or self._full(0)

    async def append(self, records: Sequence[Record]) -> None:
        """Returns when all of `records` are on the disk. Raises SpoolError; they may be there nevertheless."""
        size = sum(map(size_of, records))
        if reason := self._full(size):
            raise SpoolError(reason)
        self._pending_bytes += size
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(lambda ended: self._release(size, ended))
        self._calls.put(_Call(future, records, size=size))
        # The future itself is never cancelled: its bytes wait in memory until the thread has had them.
        done, _ = await asyncio.wait({future}, timeout=APPEND_SECONDS)
        if not done:
            raise SpoolError(f"the disk has not answered for {APPEND_SECONDS:g} s")
        future.result()

    async def read(self, after: int, limit: int) -> list[Row]:
        """Up to `limit` events with ids beyond `after`, the oldest first; damaged ones are dropped and counted."""
        return await self._do(lambda file: _read(file, after, limit))

    async def delete(self, ids: Sequence[int]) -> None:
        """Forget events that Kafka has acknowledged. Raises SpoolError."""
        DRAINED.labels(SERVICE).inc(await self._do(lambda file: file.delete(ids)))

    def _full(self, size: int) -> str | None:
        figures = self.figures
        if figures.bytes + self._pending_bytes + size > self._limit_bytes:
            return f"the spool is full: {figures.bytes} of {self._limit_bytes} bytes"
        if self._pending_bytes + size > PENDING_BYTES:
            return f"{self._pending_bytes} bytes wait for the disk"
        if self._oldest_seconds() > self._limit_seconds:
            return f"the spool's oldest event has waited for more than {self._limit_seconds:g} s"
        return None

    def _oldest_seconds(self) -> float:
        oldest = self.figures.oldest
        return 0.0 if oldest is None else max(0.0, time.time() - oldest)

    def _release(self, size: int, ended: asyncio.Future[None]) -> None:
        self._pending_bytes -= size
        ended.exception()  # whoever has stopped waiting does not want to know

    async def _do(self, work: Callable[[SpoolFile], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put(_Call(future, work=work))
        return await future

    # From here on: the thread.

    def _run(self) -> None:
        self._attempt(lambda file: file.check())
        self._opened.set()
        stopping = False
        while not stopping:
            calls = self._next_calls()
            stopping = None in calls
            self._serve([call for call in calls if call is not None])
        if self._file is not None:
            self._close()

    def _next_calls(self) -> list[_Call | None]:
        try:
            calls = [self._calls.get(timeout=RETRY_SECONDS if self._failure else None)]
        except queue.Empty:
            self._attempt(lambda file: file.check())  # so that it is ready again without traffic
            return []
        size = 0
        while (last := calls[-1]) is not None and len(calls) < GROUP_CALLS and (size := size + last.size) < GROUP_BYTES:
            try:
                calls.append(self._calls.get_nowait())
            except queue.Empty:
                break
        return calls

    def _serve(self, calls: Sequence[_Call]) -> None:
        """Deletions and reads first, as they make room; then all that is to be appended in one commit."""
        ends = [(call, self._attempt(call.work)) for call in calls if call.work is not None]
        appends = [call for call in calls if call.work is None]
        if appends:
            records = [record for call in appends for record in call.records]
            end = self._attempt(lambda file: file.append(records, time.time()))
            if not isinstance(end, SpoolError):
                APPENDED.labels(SERVICE).inc(len(records))
            ends += [(call, end) for call in appends]
        if ends:
            try:
                self._loop.call_soon_threadsafe(_resolve, ends)
            except RuntimeError:  # the loop has ended, nobody waits
                log.warning("the spool was used after its process had stopped")

    def _attempt(self, work: Callable[[SpoolFile], T]) -> T | SpoolError:
        """What `work` returns; once more on a new file when the old one turns out to be damaged."""
        try:
            try:
                result = work(self._open())
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._replace(error)
                result = work(self._open())
            assert self._file is not None
            self.figures = self._file.figures()
        except (sqlite3.Error, OSError, SpoolError) as error:
            reason = f"the spool cannot be used: {error}"
            if self._failure != reason:
                log.warning("the spool cannot be used", folder=str(self._folder), error=repr(error))
            self._failure = reason
            return SpoolError(reason)
        if self._failure is not None:
            log.info("the spool is open", folder=str(self._folder), events=self.figures.events)
        self._failure = None
        EVENTS.labels(SERVICE).set(self.figures.events)
        BYTES.labels(SERVICE).set(self.figures.bytes)
        return result

    def _open(self) -> SpoolFile:
        if self._file is None:
            self._file = SpoolFile(self._folder)
        return self._file

    def _replace(self, error: Exception) -> None:
        if self._file is not None:
            self._close()
        aside = set_aside(self._folder)
        SET_ASIDE.labels(SERVICE).inc()
        rescued = self._open().rescue(aside)
        log.error("a damaged spool file was set aside", path=str(aside), error=repr(error), rescued=rescued)

    def _close(self) -> None:
        assert self._file is not None
        file, self._file = self._file, None
        try:
            file.close()
        except (sqlite3.Error, OSError) as error:
            log.warning("the spool did not close cleanly", error=repr(error))


def _read(file: SpoolFile, after: int, limit: int) -> list[Row]:
    rows, damaged = file.read(after, limit)
    if damaged:
        log.error("damaged events were dropped from the spool", count=len(damaged), ids=damaged[:20])
        SKIPPED.labels(SERVICE).inc(file.delete(damaged))
        return rows or _read(file, damaged[-1], limit)
    return rows


def _resolve(ends: Sequence[tuple[_Call, Any]]) -> None:
    for call, end in ends:
        if call.future.done():
            continue
        if isinstance(end, SpoolError):
            call.future.set_exception(end)
        else:
            call.future.set_result(end)
