"""Users whose state changes because a day has passed: found by an index, moved in bulk by one statement."""

from collections.abc import Collection, Mapping
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import revisions
from libs.common.events import EVENT_TYPES, schema_name
from services.segmentation.domain.lifecycle import State, Thresholds
from services.segmentation.store.lifecycle import STATE
from services.segmentation.store.moves import CHANGE


async def read_oldest_flip(session: AsyncSession, account: str, day: date) -> date | None:
    """The longest overdue of the days on which a user's state has to be looked at; None when none is due on `day`."""
    oldest = await session.execute(
        text("select min(flips_on) from lifecycle_state where account = :account and flips_on <= :day"),
        {"account": account, "day": day},
    )
    day_or_none: date | None = oldest.scalar_one()
    return day_or_none


async def lock_due(session: AsyncSession, account: str, day: date, limit: int) -> dict[str, date]:
    """The users whose state has to be looked at on `day`, with the day from which on; the longest overdue first.

    Their rows are locked. Whom another transaction holds is left out: nobody is waited for, so nothing can deadlock.
    """
    # Without a second column the rows of a day come in the order in which they lie on disk.
    rows = await session.execute(
        text(
            "select user_id, flips_on from lifecycle_state where account = :account and flips_on <= :day"
            " order by flips_on limit :limit for update skip locked"
        ),
        {"account": account, "day": day, "limit": limit},
    )
    return {row.user_id: row.flips_on for row in rows}


# Moves locked users to where they belong on :day: state, history and notices in one statement. Of whom has days after
# it, the days up to it are summed up. :days and :midnights say at which instant each day begins; a state that began
# before the first of them has not changed.
MOVE_DUE = f"""
    with due as (
        select *, state as state_from, revision = 0 as initial from lifecycle_state
        where account = :account and user_id = any(cast(:users as text[]))
    ), active as (
        select *, lag(day) over (partition by user_id order by day) as previous from (
            select distinct due.user_id, state_from, initial, d.day from due
            join alias a on a.account = due.account and a.user_id = due.user_id
            join active_day d on d.account = a.account and d.subject = a.subject
            where due.last_day > :day
        ) as days
    ), known as (
        select user_id, state_from, initial, first_day, last_day, returned_day, cast(null as date) as ahead from due
        where last_day <= :day
        union all
        select user_id, state_from, initial, min(day), max(day) filter (where day <= :day),
            max(day) filter (where day <= :day and day - previous - 1 > :quiet), min(day) filter (where day > :day)
        from active group by user_id, state_from, initial
    ), placed as (
        select *, coalesce(returned_day, first_day) as came, {STATE} as state from known
    ), dated as (
        select *, case state
            when 'lost' then last_day + cast(:lost as int) + 1
            when 'dormant' then last_day + cast(:quiet as int) + 1
            when 'active' then came + cast(:quiet as int)
            else came end as since_day, least(ahead, case state
            when 'lost' then null
            when 'dormant' then last_day + cast(:lost as int) + 1
            when 'active' then last_day + cast(:quiet as int) + 1
            else came + cast(:quiet as int) end) as flips_on
        from placed
    ), looked_at as (
        update lifecycle_state s set
            state = n.state, since = coalesce(m.since, s.since), flips_on = n.flips_on,
            revision = case when n.state = state_from then s.revision
                else greatest(s.revision, :revision_floor) + case when state_from = 'none' then 1 else 2 end end,
            updated_at = greatest(s.updated_at, :now)
        from dated n
        left join unnest(cast(:days as date[]), cast(:midnights as timestamptz[])) as m(day, since)
            on m.day = n.since_day
        where s.account = :account and s.user_id = n.user_id
        returning s.user_id, state_from, n.state as state_to, s.revision, initial, s.since, s.updated_at as decided_at
    ), moved as (
        select * from looked_at where state_from <> state_to
    ), remembered as (
        insert into membership_change ({CHANGE})
        select :account, user_id, :layering, revision, :prefix || nullif(state_from, 'none'), :prefix || state_to,
            'time_passed', initial, since, decided_at
        from moved
    ), told as (
        insert into outbox (topic, key, value)
        select :topic, convert_to(:account || '/' || a.subject, 'UTF8'), convert_to(json_build_object(
            'specversion', '1.0', 'id', entity || '/' || n.revision, 'source', cast(:source as text),
            'type', type, 'subject', a.subject, 'time', decided, 'account', cast(:account as text),
            'receivedtime', decided, 'dataschema', schema, 'backfill', false, 'trust', 'server',
            'data', json_build_object(
                'segment', :prefix || n.state, 'entity', entity, 'revision', n.revision,
                'since', to_char(m.since at time zone 'UTC', :rfc3339),
                'reason', 'time_passed', 'initial', m.initial, 'user_id', m.user_id))::text, 'UTF8')
        from moved m join alias a on a.account = :account and a.own_id = m.user_id
        cross join lateral (values
            ('segment.left', :left_schema, state_from, m.revision - 1),
            ('segment.entered', :entered_schema, state_to, m.revision)) as n(type, schema, state, revision)
        cross join lateral (select m.user_id || '/' || :layering, to_char(decided_at at time zone 'UTC', :rfc3339))
            as texts(entity, decided)
        where n.state <> 'none'
        order by m.user_id, n.revision
    )
    select state_from, state_to, count(*) as users from moved group by state_from, state_to
"""


async def move_due(
    session: AsyncSession,
    account: str,
    users: Collection[str],
    day: date,
    now: datetime,
    midnights: Mapping[date, datetime],
    thresholds: Thresholds,
    source: str,
) -> list[tuple[State, State, int]]:
    """Move users locked by `lock_due`; returns how many went from which state to which.

    `midnights`: when each day begins, from the longest overdue one to `day`.
    """
    # Each row is fetched by an index: the cost grows with what is due, whatever the planner expects.
    await session.execute(text("set local enable_seqscan = off"))
    rows = await session.execute(
        text(MOVE_DUE),
        {
            "account": account,
            "users": list(users),
            "day": day,
            "now": now,
            "revision_floor": revisions.floor(now),
            "days": list(midnights),
            "midnights": list(midnights.values()),
            "quiet": thresholds.quiet,
            "lost": thresholds.lost,
            "layering": "lifecycle",
            "prefix": "lifecycle.",
            "source": source,
            "topic": EVENT_TYPES["segment.entered"].topic,
            "left_schema": _schema("segment.left"),
            "entered_schema": _schema("segment.entered"),
            "rfc3339": 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"',
        },
    )
    session.info["outbox"] = True
    return [(row.state_from, row.state_to, row.users) for row in rows]


def _schema(event_type: str) -> str:
    return schema_name(event_type, EVENT_TYPES[event_type].version)
