"""The line stops when too much goes wrong: somebody looks before more events are set aside.

The state lies in the service's database, so that all its workers stop together and a restart does not start it again.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.consumer.metrics import STOPPED
from libs.common.db import Sessions

log = structlog.get_logger(__name__)

LETTERS = 100
WITHIN = timedelta(minutes=5)
LAST_EVENTS = 1000
SHARE = 0.1
POLL_SECONDS = 1.0


def why_stop(recent: int, among_last: int) -> str | None:
    """The reason to stop, or None. `recent` dead letters were written within 5 minutes, `among_last` are of the last
    1,000 events; both count from the last time that the line was resumed."""
    if recent >= LETTERS:
        return f"{LETTERS} events went to the dead letters within {WITHIN.seconds // 60} minutes"
    if among_last >= SHARE * LAST_EVENTS:
        return f"{SHARE:.0%} of the last {LAST_EVENTS:,} events went to the dead letters"
    return None


async def stop_if_needed(session: AsyncSession, cluster_id: str, now: datetime) -> str | None:
    """Stop the line in the caller's transaction, which has just written dead letters; returns why if it was running."""
    row = (
        await session.execute(
            text(
                "with begin as (select greatest(:since, max(resumed_at)) as recent,"
                " coalesce(max(resumed_at), '-infinity') as resumed, bool_or(resumed_at is null) as stopped"
                " from consumer_stop),"
                " at as (select sum(next_offset) as position from consumer_offset where cluster_id = :cluster)"
                " select coalesce(stopped, false) as stopped,"
                " (select count(*) from (select 1 from dead_letter where first_at > recent limit :most) r) as recent,"
                " (select count(*) from (select 1 from dead_letter, at where dead_letter.position > at.position - :last"
                " and dead_letter.position <= at.position and first_at > resumed limit :most) l) as among_last"
                " from begin"
            ),
            {"since": now - WITHIN, "cluster": cluster_id, "last": LAST_EVENTS, "most": LETTERS},
        )
    ).one()
    reason = why_stop(row.recent, row.among_last)
    if reason is None or row.stopped:
        return None
    await session.execute(
        text("insert into consumer_stop (stopped_at, reason) values (:now, :reason) on conflict do nothing"),
        {"now": now, "reason": reason},
    )
    return reason


async def read(session: AsyncSession) -> tuple[datetime, str] | None:
    """Since when and why the line is stopped, None when it runs."""
    row = (
        await session.execute(
            text("select stopped_at, reason from consumer_stop where resumed_at is null order by stopped_at limit 1")
        )
    ).one_or_none()
    return None if row is None else (row.stopped_at, row.reason)


async def resume(session: AsyncSession, who: str, now: datetime) -> bool:
    """Let the line run again; False when it was running."""
    result = await session.execute(
        text("update consumer_stop set resumed_at = :now, resumed_by = :who where resumed_at is null returning 1"),
        {"now": now, "who": who},
    )
    return result.first() is not None


class Line:
    """What one process knows of its service's line. Until it could be read the line is held, as if it were stopped."""

    def __init__(self, service: str, sessions: Sessions) -> None:
        self._service = service
        self._sessions = sessions
        self._known = False
        self._reason: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether nothing may be consumed now."""
        return not self._known or self._reason is not None

    def problem(self) -> str | None:
        """Readiness: why nothing is consumed, and what to do about it."""
        if self._reason:
            return f"stopped: {self._reason}; look at /v1/dead-letters, then POST /v1/consumer:resume"
        return None if self._known else "whether the line is stopped is not known yet"

    def stopped(self, reason: str) -> None:
        """This process has stopped the line, and the stop is committed."""
        log.error("the line is stopped", reason=reason)
        self._set(reason)

    async def start(self) -> None:
        """Follow the state in the database until `stop`."""
        self._task = asyncio.create_task(self._follow(), name=f"{self._service} line")

    async def stop(self) -> None:
        """End what `start` began."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Read the state; raises what the database raises."""
        async with self._sessions() as session:
            found = await read(session)
        was_held, known = self.held, self._known
        self._set(found[1] if found else None)
        if known and was_held != self.held:
            log.warning("the line is stopped elsewhere" if self.held else "the line runs again", reason=self._reason)

    def _set(self, reason: str | None) -> None:
        self._known, self._reason = True, reason
        STOPPED.labels(self._service).set(reason is not None)

    async def _follow(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as error:  # the database is away: what was known stays true
                log.warning("the state of the line cannot be read", error=repr(error)[:300])
            await asyncio.sleep(POLL_SECONDS)
