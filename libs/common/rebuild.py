"""`job rebuild`: a service's fact tables, folded again from its event table; decisions stay as they are.

One transaction, safe beside running workers. Whoever applies events writes to `event` first, so a lock on that table
lets all that has begun finish and makes everyone else wait: batches and sign-ins are tried again, reads go on. What is
folded under that lock is everything, and nothing twice.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import CursorResult, Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import identity
from libs.common.config import Account
from libs.common.db import Database, make_engine, make_sessions
from libs.common.events import AnyEvent
from libs.common.history import read_events

log = structlog.get_logger(__name__)

AccountOf = Callable[[str], Account]


@dataclass(frozen=True)
class Facts:
    """What of a service follows from its events alone, and how.

    `fold(session, events, account_of)` adds events to `tables`, whatever their order. It is given those of `types`,
    without their content unless `with_data`. `recount(session)` fills those of `tables` that sum up other tables.
    `announce(session, now, account_of)` runs when the tables are right again: it corrects what was concluded from them,
    tells the others of differences, and returns how many it told.
    """

    tables: Sequence[Table]
    types: Collection[str]
    fold: Callable[[AsyncSession, list[AnyEvent], AccountOf], Awaitable[None]]
    with_data: bool = False
    recount: Callable[[AsyncSession], Awaitable[None]] | None = None
    announce: Callable[[AsyncSession, datetime, AccountOf], Awaitable[int]] | None = None


@dataclass
class Rebuilt:
    """What a rebuild did: events folded, rows that had to be changed by table, differences told."""

    events: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    announced: int = 0


async def rebuild(database: Database | str, facts: Facts, account_of: AccountOf, now: datetime) -> Rebuilt:
    """Fold the event table again and write back the rows that differ. Raises UnknownAccountError when an account with
    events is not configured; then nothing has changed."""
    engine = make_engine(database, 1, patient=True)
    try:
        async with make_sessions(engine)() as session, session.begin():
            return await _rebuild(session, facts, account_of, now)
    finally:
        await engine.dispose()


async def _rebuild(session: AsyncSession, facts: Facts, account_of: AccountOf, now: datetime) -> Rebuilt:
    done = Rebuilt()
    names = [table.name for table in facts.tables]
    await session.execute(text(f"lock table event, {', '.join(names)} in share row exclusive mode"))
    done.changed["alias"] = await identity.restore(session)
    # Temporary tables hide those of the same names from the service's own SQL; the outbox's mutes the fold.
    hidden = [*names, "outbox"]
    for name in hidden:
        await session.execute(text(f"create temp table {name} (like public.{name} including all) on commit drop"))
    async for events in read_events(session, facts.types, with_data=facts.with_data):
        await facts.fold(session, events, account_of)
        done.events += len(events)
        log.info("folding", events=done.events)
    if facts.recount:
        await facts.recount(session)
    for table in facts.tables:
        done.changed[table.name] = await _write_differences(session, table)
    for name in hidden:
        await session.execute(text(f"drop table pg_temp.{name}"))
    if facts.announce:
        done.announced = await facts.announce(session, now, account_of)
    return done


async def _write_differences(session: AsyncSession, table: Table) -> int:
    """Make the real table equal to the temporary one; returns how many rows were deleted, added or changed."""
    columns = [column.name for column in table.columns]
    key = [column.name for column in table.primary_key]
    rest = [name for name in columns if name not in key]
    await session.execute(text(f"analyze pg_temp.{table.name}"))
    gone = await _count(
        session,
        f"delete from public.{table.name} o where not exists (select 1 from pg_temp.{table.name} n"
        f" where {' and '.join(f'n.{name} = o.{name}' for name in key)})",
    )
    action = f"update set {', '.join(f'{name} = excluded.{name}' for name in rest)}" if rest else "nothing"
    listed = ", ".join(columns)
    written = await _count(
        session,
        f"insert into public.{table.name} ({listed}) select {listed} from pg_temp.{table.name}"
        f" except select {listed} from public.{table.name}"
        f" on conflict ({', '.join(key)}) do {action}",
    )
    return gone + written


async def _count(session: AsyncSession, statement: str) -> int:
    result: CursorResult[Any] = await session.execute(text(statement))  # type: ignore[assignment]
    return result.rowcount
