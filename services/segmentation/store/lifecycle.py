"""Active days, and the lifecycle that was announced."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from operator import attrgetter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.segmentation.domain.lifecycle import Activity, State, Thresholds
from services.segmentation.store import UserKey, columns

ActiveDay = tuple[str, str, date]
"""(account, subject, local day)"""


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
        columns(("account", "subject", "day"), rows),
    )
    return [(row.account, row.subject, row.day) for row in inserted]


async def lock_states(session: AsyncSession, users: Iterable[UserKey]) -> list[StateRow]:
    """The state row of each user, made where there is none, locked in key order until the transaction ends."""
    keys = columns(("account", "user_id"), sorted(users))
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
        columns(("account", "user_id"), sorted(users)),
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
        columns(names, list(map(attrgetter(*names), rows))),
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
