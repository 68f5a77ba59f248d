"""One poll = one transaction: offsets, event table, use case, outbox; a bad event is set aside alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import identity, inbox, tracing
from libs.common.config import UnknownAccountError
from libs.common.consumer import offsets
from libs.common.consumer.line import Line, stop_if_needed
from libs.common.consumer.metrics import DEAD_LETTERS, EVENTS_APPLIED, EVENTS_REPEATED
from libs.common.db import Sessions, is_transient
from libs.common.dead_letters import store as dead_letters
from libs.common.dead_letters.store import Refused
from libs.common.events import AnyEvent, parse_event
from libs.common.kafka import Batch, Message

log = structlog.get_logger(__name__)

ACCOUNT_GRACE = timedelta(seconds=90)
"""A new account may reach ingest before this process has read the new configuration: so long it is waited for."""


class Handler(Protocol):
    """A service's use case for a whole batch: locks or commutes, writes in bulk, adds derived events to the outbox."""

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None: ...


class WaitForAccountError(Exception):
    """An event of an account that the configuration does not name yet; retried like a database failure."""


class OffsetConflictError(Exception):
    """Another member has applied these `batches`, or a part of them."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        places = ", ".join(f"{batch.topic}/{batch.partition} at {batch.position}" for batch in batches)
        super().__init__(f"no longer stands where it was read: {places}")
        self.batches = batches


class _Item(NamedTuple):
    record: Message
    event: AnyEvent
    again: bool
    """Applied before, by a database that has since gone back to an older state."""


class Applier:
    """Applies batches to one service's database.

    Raises OffsetConflictError when some batches are not this process's to apply, and whatever `is_retryable` accepts
    when the same batches should be tried again; nothing is applied then. A deterministic error never escapes: its event
    goes to the dead letters.
    """

    def __init__(self, service: str, sessions: Sessions, handle: Handler, keep: Callable[[str], bool]) -> None:
        self.service = service
        self.sessions = sessions
        self.line = Line(service, sessions)
        self._handle = handle
        self._keep = keep

    async def apply(self, cluster_id: str, batches: Sequence[Batch], now: datetime) -> bool:
        """Commit the offsets and effects of `batches`, one a partition, in one transaction; returns whether derived
        events were added to the outbox."""
        items, letters = _decode(batches)
        spans = (
            None if tracing.tracer is None else tracing.tracer.begin_events((item.record, item.event) for item in items)
        )
        try:
            return await self._transaction(cluster_id, batches, items, letters, now, spans, bisect=False)
        except Exception as error:
            if isinstance(error, OffsetConflictError) or is_retryable(error):
                raise
            return await self._transaction(cluster_id, batches, items, letters, now, spans, bisect=True)

    async def _transaction(
        self,
        cluster_id: str,
        batches: Sequence[Batch],
        items: list[_Item],
        letters: list[Refused],
        now: datetime,
        spans: tracing.Applying | None,
        *,
        bisect: bool,
    ) -> bool:
        letters = list(letters)
        async with self.sessions() as session, session.begin():
            if refused := await offsets.advance(session, cluster_id, batches):
                raise OffsetConflictError(refused)
            if bisect:
                # All at once: halves that each take their own could wait for those of another transaction.
                await identity.lock_for(session, [item.event for item in items])
                counts = await self._bisect(session, items, letters, now)
            else:
                counts = [await self._fold(session, items, now)]
            stopped = None
            if letters:
                await dead_letters.add(session, cluster_id, letters, now)
                stopped = await stop_if_needed(session, cluster_id, now)
        if spans is not None:
            errors = {id(letter.event): letter.error for letter in letters}
            spans.end(len(items), (event for arrived in counts for event in arrived.new), errors)
        if stopped:
            self.line.stopped(stopped)
        for arrived in counts:
            self.count(arrived)
        for letter in letters:
            DEAD_LETTERS.labels(self.service, type(letter.error).__name__).inc()
            log.error(
                "an event went to the dead letters",
                topic=letter.record.topic,
                partition=letter.record.partition,
                offset=letter.record.offset,
                event_id=letter.event.id if letter.event else None,
                trace_id=dead_letters.trace_id_in(letter.record.value),
                error=repr(letter.error)[:500],
            )
        return bool(session.info.pop("outbox", False))

    def count(self, arrived: inbox.Arrived) -> None:
        """Tell in metrics what has been committed."""
        for name, number in Counter(event.type for event in arrived.new).items():
            EVENTS_APPLIED.labels(self.service, name).inc(number)
        EVENTS_REPEATED.labels(self.service, "repeat").inc(arrived.repeated)
        EVENTS_REPEATED.labels(self.service, "conflict").inc(arrived.conflicting)

    async def _fold(self, session: AsyncSession, items: list[_Item], now: datetime) -> inbox.Arrived:
        inbox.mark_again(session, {item.event.digest for item in items if item.again})
        return await self.fold(session, [item.event for item in items], now)

    async def fold(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> inbox.Arrived:
        """Event table, use case, outbox, in the caller's transaction; raises whatever keeps the events from it."""
        arrived = await inbox.insert_new(session, events, self._keep)
        if arrived.new:
            try:
                await self._handle(session, arrived.new, now)
            except UnknownAccountError as error:
                if max(event.receivedtime for event in arrived.new) > now - ACCOUNT_GRACE:
                    raise WaitForAccountError(str(error)) from error
                raise
        return arrived

    async def _bisect(
        self, session: AsyncSession, items: list[_Item], letters: list[Refused], now: datetime
    ) -> list[inbox.Arrived]:
        if not items:
            return []
        try:
            async with session.begin_nested():
                return [await self._fold(session, items, now)]
        except Exception as error:
            if is_retryable(error):
                raise
            if len(items) == 1:
                letters.append(Refused(items[0].record, items[0].event, error))
                return []
        middle = len(items) // 2
        first = await self._bisect(session, items[:middle], letters, now)
        return first + await self._bisect(session, items[middle:], letters, now)


def is_retryable(error: BaseException) -> bool:
    """Whether the same batch may succeed later without any change to it."""
    return isinstance(error, WaitForAccountError) or is_transient(error)


def _decode(batches: Sequence[Batch]) -> tuple[list[_Item], list[Refused]]:
    items, letters = [], []
    for batch in batches:
        for record in batch.records:
            try:
                event = parse_event(record.value or b"")
                items.append(_Item(record, event, record.offset < batch.applied_until))
            except ValueError as error:  # pydantic's ValidationError is one
                letters.append(Refused(record, None, error))
    return items, letters
