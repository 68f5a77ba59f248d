"""Work that calls the outside world, or waits for an exact instant: rows of a table that one worker at a time holds.

A lease lets the call happen between two transactions: `claim` and commit, call, `settle` together with the outcome and
commit. A worker that dies gives its rows back when its lease ends; what it says after another has claimed them is
refused. A row that comes back so is marked `abandoned`: nobody knows whether the call of its last holder was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Integer,
    Row,
    Table,
    Uuid,
    and_,
    func,
    literal,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

DOUBLINGS = 20
"""More make a pause that no clock can tell; none of ours goes so far."""


def lease_columns() -> tuple[Column[Any], Column[Any], Column[Any]]:
    """What a table of leased work has beside its primary key; index `due_at` where it is not null.

    `due_at`: when somebody may claim the row, so while it is held the end of its lease; null when nothing is left to
    do. `attempts`: how often it has been claimed. `lease`: whose it is, null while nobody holds it.
    """
    return (
        Column("due_at", DateTime(timezone=True)),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("lease", Uuid),
    )


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is held. `key`: its primary key. `attempts`: with this one. `row`: all columns, as they are now."""

    key: tuple[Any, ...]
    lease: UUID
    attempts: int
    abandoned: bool
    row: Row[Any]


async def claim(
    session: AsyncSession, table: Table, now: datetime, lasting: timedelta, limit: int, *where: ColumnElement[bool]
) -> list[Claimed]:
    """Hold up to `limit` rows that are due `now` and fit `where`, the longest due first, then by key. One statement.

    Effective with the commit, and to be committed before any call is made. `lasting` must be longer than all calls of
    the batch together can take. Rows that another claimer has in hand are passed over, never waited for.
    """
    key = list(table.primary_key.columns)
    due = (
        select(*key, table.c.due_at.label("was_due"), table.c.lease.is_not(None).label("was_held"))
        .where(table.c.due_at <= now, *where)
        .order_by(table.c.due_at, *key)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = await session.execute(
        update(table)
        .where(and_(*(column == due.c[column.name] for column in key)))
        .values(due_at=now + lasting, attempts=table.c.attempts + 1, lease=uuid4())
        .returning(*table.c, due.c.was_due, due.c.was_held)
    )
    found = sorted(rows, key=lambda row: (row.was_due, *_key_of(table, row)))
    return [Claimed(_key_of(table, row), row.lease, row.attempts, row.was_held, row) for row in found]


async def settle(
    session: AsyncSession, table: Table, outcomes: Sequence[tuple[Claimed, datetime | None]]
) -> list[Claimed]:
    """Let go of rows: each is due again at the instant beside it, or for None never again. One statement.

    Returns those that were still held, in the given order. The others were claimed by somebody else meanwhile: nothing
    may be written about them. Outcomes of the returned ones belong into the same transaction.
    """
    if not outcomes:
        return []
    key = list(table.primary_key.columns)
    given = (
        func.unnest(
            *(
                literal([claimed.key[index] for claimed, _ in outcomes], ARRAY(column.type))
                for index, column in enumerate(key)
            ),
            literal([claimed.lease for claimed, _ in outcomes], ARRAY(Uuid)),
            literal([due_at for _, due_at in outcomes], ARRAY(DateTime(timezone=True))),
        )
        .table_valued(*(Column(column.name, column.type) for column in key), "held_lease", "next_due", name="given")
        .render_derived()
    )
    rows = await session.execute(
        update(table)
        .where(
            and_(*(column == given.c[column.name] for column in key)),
            table.c.lease == given.c.held_lease,
        )
        .values(due_at=given.c.next_due, lease=null())
        .returning(*key)
    )
    held = {tuple(row) for row in rows}
    return [claimed for claimed, _ in outcomes if claimed.key in held]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the nth attempt: `first`, then twice as long each time, `longest` at most."""

    first: timedelta
    longest: timedelta

    def after(self, attempts: int, jitter: float) -> timedelta:
        """The pause after `attempts` failures, cut by up to a half: `jitter` from 0 (whole) to 1 (half), drawn by the
        caller, keeps those that failed together from coming back together."""
        whole = min(self.longest, self.first * 2.0 ** min(attempts - 1, DOUBLINGS))
        return whole * (1 - jitter / 2)


def _key_of(table: Table, row: Row[Any]) -> tuple[Any, ...]:
    return tuple(row._mapping[column] for column in table.primary_key.columns)
