"""Derived events leave through a table in the same transaction as their cause, and a relay publishes them.

A crash between publishing and deleting publishes again under the same id: at least once, never lost, never for a
change that was rolled back. Several relays may run at once; order is not promised, notices carry revisions instead.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Sessions
from libs.common.events import AnyEvent, parse_event
from libs.common.kafka import Producer, Record

log = structlog.get_logger(__name__)

BATCH = 500
FULL_AT = 100_000
FREE_AT = 50_000

OUTBOX_ROWS = Gauge(
    "superfan_outbox_rows", "Derived events that wait to be published (counted to 100,001)", ["service"]
)
OUTBOX_AGE = Gauge("superfan_outbox_oldest_seconds", "Age of the oldest derived event that waits", ["service"])
OUTBOX_PUBLISHED = Counter("superfan_outbox_published_total", "Derived events published", ["service"])
OUTBOX_ERRORS = Counter("superfan_outbox_errors_total", "Failed attempts to publish derived events", ["service"])


INSERT = text(
    "insert into outbox (topic, key, value) select * from"
    " unnest(cast(:topics as text[]), cast(:keys as bytea[]), cast(:values as bytea[]))"
)
TAKE = text(
    "delete from outbox where id in (select id from outbox order by id limit :limit"
    " for update skip locked) returning topic, key, value"
)


async def add(session: AsyncSession, events: Sequence[AnyEvent]) -> None:
    """Publish `events` if and when the session's transaction commits. One statement.

    Raises ValueError for a text with a NUL character, which no consumer could store.
    """
    if not events:
        return
    values = [event.to_json() for event in events]
    if any(b"\\u0000" in value for value in values):
        for event in events:
            parse_event(event.to_json())  # the escape may stand in innocent text
    await session.execute(
        INSERT,
        {"topics": [event.topic for event in events], "keys": [event.key for event in events], "values": values},
    )
    session.info["outbox"] = True


class Relay:
    """Publishes what lies in the outbox of one service. Failures of Kafka or PostgreSQL are retried without end."""

    def __init__(self, service: str, sessions: Sessions, producer: Producer) -> None:
        self.full = False
        self._service = service
        self._sessions = sessions
        self._producer = producer
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to publish."""
        self._task = asyncio.create_task(self._run(), name=f"{self._service} outbox relay")

    async def stop(self) -> None:
        """Finish the batch at hand."""
        self._stopping = True
        self._wake.set()
        if self._task:
            try:
                await asyncio.wait_for(self._task, 8)
            except TimeoutError:
                log.warning("the outbox relay was cut off; its batch is published again")

    def wake(self) -> None:
        """Something was committed to the outbox by this process: look at once."""
        self._wake.set()

    async def _run(self) -> None:
        delay = 0.2
        counted_at = 0.0
        while not self._stopping:
            try:
                try:
                    moved = await self.publish_some()
                finally:  # also when nothing can be published: rows that grow old must be seen to
                    if time.monotonic() - counted_at > 1:
                        await self._count()
                        counted_at = time.monotonic()
                delay = 0.2
            except Exception as error:
                OUTBOX_ERRORS.labels(self._service).inc()
                log.warning("the outbox cannot be published; trying again", error=repr(error), delay=delay)
                moved = 0
                delay = min(delay * 2, 5.0)
            if moved < BATCH and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), delay)
                self._wake.clear()

    async def publish_some(self) -> int:
        """Publish and remove up to 500 rows in one transaction; returns how many. Raises what went wrong."""
        async with self._sessions() as session, session.begin():
            rows = (await session.execute(TAKE, {"limit": BATCH})).all()
            if rows:
                records = [Record(topic, key, value) for topic, key, value in rows]
                outcomes = await self._producer.send(records, timeout=10)
                failure = next((outcome for outcome in outcomes if outcome is not None), None)
                if failure is not None:
                    raise failure
        OUTBOX_PUBLISHED.labels(self._service).inc(len(rows))
        return len(rows)

    async def _count(self) -> None:
        async with self._sessions() as session:
            row = (
                await session.execute(
                    text(
                        "select count(*) as rows, coalesce(extract(epoch from now() - min(created_at)), 0) as age"
                        " from (select created_at from outbox order by id limit :limit) o"
                    ),
                    {"limit": FULL_AT + 1},
                )
            ).one()
        OUTBOX_ROWS.labels(self._service).set(row.rows)
        OUTBOX_AGE.labels(self._service).set(float(row.age))
        self.full = row.rows > (FREE_AT if self.full else FULL_AT)
