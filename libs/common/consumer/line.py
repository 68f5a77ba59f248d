"""What of a service is not consumed: all of it when too much goes wrong, or the topics that operators have paused.

The state lies in the service's database, so that all its workers follow within seconds and a restart changes nothing.
An open row of `consumer_stop` (`resumed_at` is null) is a stop by dead letters, with the topic '', or the pause of one
topic. Workers from before there were pauses take any open row for a stop: they hold everything, never too little.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.consumer.metrics import LETTERS_WAITING, STOPPED
from libs.common.db import Sessions
from libs.common.dead_letters import store

log = structlog.get_logger(__name__)

LETTERS = 100
WITHIN = timedelta(minutes=5)
LAST_EVENTS = 1000
SHARE = 0.1
POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Since when and why something is not consumed; `by` names the operator, None when dead letters did it."""

    at: datetime
    reason: str
    by: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What is not consumed: everything while there is a `stop`, else the topics among `pauses`."""

    stop: Hold | None = None
    pauses: Mapping[str, Hold] = field(default_factory=dict)


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
                " from consumer_stop where topic = ''),"
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


async def read(session: AsyncSession) -> State:
    """What is not consumed now."""
    rows = await session.execute(
        text(
            "select topic, stopped_at, reason, stopped_by from consumer_stop where resumed_at is null"
            " order by topic, stopped_at desc"
        )
    )
    holds = {row.topic: Hold(row.stopped_at, row.reason, row.stopped_by) for row in rows}
    return State(holds.pop("", None), holds)


async def pause(session: AsyncSession, topics: Sequence[str], reason: str, who: str, now: datetime) -> list[str]:
    """Hold `topics`; returns those that were not paused before: a pause keeps its first reason."""
    rows = await session.execute(
        text(
            "insert into consumer_stop (stopped_at, topic, reason, stopped_by)"
            " select :now, topic, :reason, :who from unnest(cast(:topics as text[])) as t(topic)"
            " on conflict do nothing returning topic"
        ),
        {"now": now, "reason": reason, "who": who, "topics": sorted(set(topics))},
    )
    return sorted(rows.scalars())


async def resume(session: AsyncSession, topics: Sequence[str] | None, who: str, now: datetime) -> list[str]:
    """End the pauses of `topics`; of None everything, a stop too. Returns what was held, '' for the stop."""
    rows = await session.execute(
        text(
            "update consumer_stop set resumed_at = :now, resumed_by = :who where resumed_at is null"
            " and (cast(:topics as text[]) is null or topic = any(cast(:topics as text[]))) returning topic"
        ),
        {"now": now, "who": who, "topics": None if topics is None else list(topics)},
    )
    return sorted(rows.scalars())


class Line:
    """What one process knows of its service's state. Until it could be read everything is held."""

    def __init__(self, service: str, sessions: Sessions) -> None:
        self._service = service
        self._sessions = sessions
        self._state: State | None = None
        self._task: asyncio.Task[None] | None = None

    def holds(self, topic: str) -> bool:
        """Whether nothing of `topic` may be consumed now."""
        return self._state is None or self._state.stop is not None or topic in self._state.pauses

    def is_paused(self, topic: str) -> bool:
        """Whether an operator has paused `topic`."""
        return self._state is not None and topic in self._state.pauses

    def stop_notice(self) -> str | None:
        """Why nothing at all is consumed, and what to do about it."""
        if self._state is None:
            return "whether the line is stopped is not known yet"
        if self._state.stop is None:
            return None
        return f"stopped: {self._state.stop.reason}; look at /v1/dead-letters, then POST /v1/consumer:resume"

    def pause_notice(self) -> str | None:
        """Which topics are paused, since when, by whom and why."""
        pauses = {} if self._state is None else self._state.pauses
        told = [
            f"{topic} since {hold.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} by {hold.by}: {hold.reason}"
            for topic, hold in pauses.items()
        ]
        return "; ".join(told) or None

    def stopped(self, reason: str) -> None:
        """This process has stopped the line, and the stop is committed."""
        log.error("the line is stopped", reason=reason)
        self._set(State(Hold(datetime.now(UTC), reason), {} if self._state is None else self._state.pauses))

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
            letters = await store.count_waiting(session)
        before = self._state
        self._set(found)
        LETTERS_WAITING.labels(self._service).set(letters)
        if before is not None and (before.stop is None) != (found.stop is None):
            log.warning("the line runs again" if found.stop is None else f"the line is stopped: {found.stop.reason}")
        was = {} if before is None else before.pauses
        if was.keys() != found.pauses.keys():
            log.warning("topics are paused" if found.pauses else "no topic is paused", topics=sorted(found.pauses))

    def _set(self, state: State) -> None:
        self._state = state
        STOPPED.labels(self._service).set(state.stop is not None)

    async def _follow(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as error:  # the database is away: what was known stays true
                log.warning("the state of the line cannot be read", error=repr(error)[:300])
            await asyncio.sleep(POLL_SECONDS)
