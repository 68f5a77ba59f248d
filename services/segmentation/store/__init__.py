"""All SQL of segmentation. Writes touch rows in key order; a user's days are read after his state row is locked.

The moves that time alone brings about are in `due.py`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.segmentation.domain import Activity, State, Thresholds

ActiveDay = tuple[str, str, date]
"""(account, subject, local day)"""
UserKey = tuple[str, str]
"""(account, user_id)"""


@dataclass(frozen=True, slots=True)
class StateRow:
    """A row of `lifecycle_state`."""

    account: str
    user_id: str
    first_day: date | None
    last_day: date | None
    returned_day: date | None
    state: State
    since: datetime | None
    flips_on: date | None
    revision: int
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A row of `membership_change`. `revision` is that of the last notice of the move."""

    account: str
    user_id: str
    layering: str
    revision: int
    segment_from: str | None
    segment_to: str | None
    reason: str
    initial: bool
    since: datetime | None
    decided_at: datetime


CHANGE = ", ".join(field.name for field in fields(MembershipChange))


async def add_days(session: AsyncSession, days: Iterable[ActiveDay]) -> list[ActiveDay]:
    """Record active days; returns those that were not known."""
    rows = sorted(days)
    if not rows:
        return []
    inserted = await session.execute(
        text(
            "insert into active_day (account, subject, day) select * from"
            " unnest(cast(:account as text[]), cast(:subject as text[]), cast(:day as date[]))"
            " on conflict do nothing returning account, subject, day"
        ),
        _columns(("account", "subject", "day"), rows),
    )
    return [(row.account, row.subject, row.day) for row in inserted]


async def find_users(session: AsyncSession, subjects: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The user_id of each (account, subject)."""
    rows = await session.execute(
        text(
            "select a.account, a.subject, a.user_id from alias a"
            " join unnest(cast(:account as text[]), cast(:subject as text[])) as n(account, subject)"
            " on n.account = a.account and n.subject = a.subject"
        ),
        _columns(("account", "subject"), sorted(subjects)),
    )
    return {(row.account, row.subject): row.user_id for row in rows}


async def lock_states(session: AsyncSession, users: Iterable[UserKey]) -> list[StateRow]:
    """The state row of each user, made where there is none, locked in key order until the transaction ends."""
    keys = _columns(("account", "user_id"), sorted(users))
    await session.execute(
        text(
            "insert into lifecycle_state (account, user_id, state, revision) select account, user_id, 'none', 0 from"
            " unnest(cast(:account as text[]), cast(:user_id as text[])) as n(account, user_id) on conflict do nothing"
        ),
        keys,
    )
    rows = await session.execute(
        text(
            f"select {', '.join(f's.{field.name}' for field in fields(StateRow))} from lifecycle_state s"
            " join unnest(cast(:account as text[]), cast(:user_id as text[])) as n(account, user_id)"
            " on n.account = s.account and n.user_id = s.user_id"
            ' order by s.account collate "C", s.user_id collate "C" for update of s'
        ),
        keys,
    )
    return [StateRow(*row) for row in rows]


async def read_days(session: AsyncSession, users: Iterable[UserKey]) -> dict[UserKey, list[date]]:
    """All active days of all subjects of each user."""
    rows = await session.execute(
        text(
            "select a.account, a.user_id, array_agg(distinct d.day) as days from alias a"
            " join unnest(cast(:account as text[]), cast(:user_id as text[])) as n(account, user_id)"
            " on n.account = a.account and n.user_id = a.user_id"
            " join active_day d on d.account = a.account and d.subject = a.subject group by a.account, a.user_id"
        ),
        _columns(("account", "user_id"), sorted(users)),
    )
    return {(row.account, row.user_id): list(row.days) for row in rows}


async def update_states(session: AsyncSession, rows: Sequence[StateRow]) -> None:
    """Write locked rows back."""
    names = [field.name for field in fields(StateRow)]
    await session.execute(
        text(
            f"update lifecycle_state s set {', '.join(f'{name} = n.{name}' for name in names[2:])} from"
            " unnest(cast(:account as text[]), cast(:user_id as text[]), cast(:first_day as date[]),"
            " cast(:last_day as date[]), cast(:returned_day as date[]), cast(:state as text[]),"
            " cast(:since as timestamptz[]), cast(:flips_on as date[]), cast(:revision as bigint[]),"
            f" cast(:updated_at as timestamptz[])) as n({', '.join(names)})"
            " where n.account = s.account and n.user_id = s.user_id"
        ),
        _columns(names, list(map(attrgetter(*names), rows))),
    )


async def add_changes(session: AsyncSession, changes: Sequence[MembershipChange]) -> None:
    """Write the history of moves."""
    if not changes:
        return
    names = [field.name for field in fields(MembershipChange)]
    await session.execute(
        text(
            f"insert into membership_change ({CHANGE}) select * from"
            " unnest(cast(:account as text[]), cast(:user_id as text[]), cast(:layering as text[]),"
            " cast(:revision as bigint[]), cast(:segment_from as text[]), cast(:segment_to as text[]),"
            " cast(:reason as text[]), cast(:initial as boolean[]), cast(:since as timestamptz[]),"
            " cast(:decided_at as timestamptz[]))"
        ),
        _columns(names, list(map(attrgetter(*names), changes))),
    )


async def read_user_days(session: AsyncSession, account: str, subjects: Sequence[str], until: date) -> list[date]:
    """The active days of a user with these subjects up to `until`, in order."""
    rows = await session.execute(
        text(
            "select distinct day from active_day where account = :account"
            " and subject = any(cast(:subjects as text[])) and day <= :until order by day"
        ),
        {"account": account, "subjects": list(subjects), "until": until},
    )
    return list(rows.scalars())


# The state on :day of a user whose last active day is not after it; `domain.place` in SQL.
STATE = """case
    when cast(:day as date) - last_day > :lost then 'lost'
    when cast(:day as date) - last_day > :quiet then 'dormant'
    when cast(:day as date) - coalesce(returned_day, first_day) >= :quiet then 'active'
    when returned_day is null then 'new'
    else 'returned' end"""

# What is stored of a user covers all of his days. Who was active after the day asked about (always so when it lies in
# the past) is summed up anew from the days before it.
PLACED = f"""
    with known as (
        select user_id, first_day, last_day, returned_day from lifecycle_state
        where account = :account and last_day <= :day
        union all
        select user_id, min(day), max(day), max(day) filter (where day - previous - 1 > :quiet) from (
            select user_id, day, lag(day) over (partition by user_id order by day) as previous from (
                select distinct s.user_id, d.day from lifecycle_state s
                join alias a on a.account = s.account and a.user_id = s.user_id
                join active_day d on d.account = a.account and d.subject = a.subject
                where s.account = :account and s.first_day <= :day and s.last_day > :day and d.day <= :day
            ) as active
        ) as gaps group by user_id
    ), placed as (
        select *, {STATE} as state from known)
"""


async def count_members(session: AsyncSession, account: str, day: date, thresholds: Thresholds) -> dict[State, int]:
    """How many users are in each state on `day`; states without users are left out."""
    rows = await session.execute(
        text(f"{PLACED} select state, count(*) as size from placed group by state"),
        {"account": account, "day": day, "quiet": thresholds.quiet, "lost": thresholds.lost},
    )
    return {row.state: row.size for row in rows}


async def page_members(
    session: AsyncSession, account: str, state: State, day: date, thresholds: Thresholds, after: str, limit: int
) -> list[tuple[str, Activity]]:
    """The next users by id after `after` who are in `state` on `day`, with what puts them there; up to `limit`."""
    # The same as the state says, in a form that an index can serve.
    least_idle, most_idle = {
        "lost": (thresholds.lost + 1, None),
        "dormant": (thresholds.quiet + 1, thresholds.lost),
    }.get(state, (0, thresholds.quiet))
    rows = await session.execute(
        text(
            f"{PLACED} select user_id, first_day, last_day, returned_day from placed where state = :state"
            " and last_day >= coalesce(cast(:day as date) - cast(:most_idle as int), '-infinity')"
            " and last_day <= cast(:day as date) - cast(:least_idle as int) and user_id > :after"
            " order by user_id limit :limit"
        ),
        {
            "account": account,
            "day": day,
            "quiet": thresholds.quiet,
            "lost": thresholds.lost,
            "state": state,
            "least_idle": least_idle,
            "most_idle": most_idle,
            "after": after,
            "limit": limit,
        },
    )
    return [(row.user_id, Activity(row.first_day, row.last_day, row.returned_day)) for row in rows]


async def read_memberships(
    session: AsyncSession, account: str, user_id: str, known_at: datetime
) -> list[MembershipChange]:
    """The last move in each layering that was decided by `known_at`."""
    rows = await session.execute(
        text(
            f"select distinct on (layering) {CHANGE} from membership_change where account = :account"
            " and user_id = :user_id and decided_at <= :known_at order by layering, revision desc"
        ),
        {"account": account, "user_id": user_id, "known_at": known_at},
    )
    return [MembershipChange(*row) for row in rows]


async def page_changes(
    session: AsyncSession,
    account: str,
    user_id: str,
    known_at: datetime,
    before: tuple[datetime, str, int] | None,
    limit: int,
) -> list[MembershipChange]:
    """Moves decided by `known_at`, newest first, after the one at `before` (decided_at, layering, revision)."""
    rows = await session.execute(
        text(
            f"select {CHANGE} from membership_change where account = :account and user_id = :user_id"
            " and decided_at <= :known_at and (cast(:time as timestamptz) is null"
            " or (decided_at, layering, revision) < (:time, :layering, :revision))"
            " order by decided_at desc, layering desc, revision desc limit :limit"
        ),
        {
            "account": account,
            "user_id": user_id,
            "known_at": known_at,
            "time": before[0] if before else None,
            "layering": before[1] if before else None,
            "revision": before[2] if before else None,
            "limit": limit,
        },
    )
    return [MembershipChange(*row) for row in rows]


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Rows turned into one array a column, for unnest."""
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}
