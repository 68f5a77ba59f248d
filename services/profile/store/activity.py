"""What fans did: counts by day, firsts and lasts, and the timeline."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.profile.domain.activity import DayCount, DayKey, HourCount, Seen, Watched


async def add_counts(session: AsyncSession, counts: Mapping[DayCount, int]) -> None:
    """Add to the counts by day; one statement."""
    if not counts:
        return
    rows = sorted(counts.items())
    await session.execute(
        text(
            "insert into activity_day as a (account, subject, day, type, count)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:day as date[]),"
            " cast(:type as text[]), cast(:count as bigint[]))"
            " on conflict (account, subject, day, type) do update set count = a.count + excluded.count"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "day": [key[2] for key, _ in rows],
            "type": [key[3] for key, _ in rows],
            "count": [count for _, count in rows],
        },
    )


async def add_hours(session: AsyncSession, hours: Mapping[HourCount, int]) -> None:
    """Add to the counts by hour; one statement."""
    if not hours:
        return
    rows = sorted(hours.items())
    await session.execute(
        text(
            "insert into activity_hour as a (account, subject, day, hour, count)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:day as date[]),"
            " cast(:hour as smallint[]), cast(:count as bigint[]))"
            " on conflict (account, subject, day, hour) do update set count = a.count + excluded.count"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "day": [key[2] for key, _ in rows],
            "hour": [key[3] for key, _ in rows],
            "count": [count for _, count in rows],
        },
    )


SUMS = ("watch_ms", "measured", "completed", "within_ms", "duration_ms")


async def add_watched(session: AsyncSession, watched: Mapping[DayKey, Watched]) -> None:
    """Add to the sums over views by day; one statement."""
    if not watched:
        return
    rows = sorted(watched.items(), key=lambda row: row[0])
    await session.execute(
        text(
            f"insert into watch_day as w (account, subject, day, {', '.join(SUMS)})"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:day as date[]),"
            f" {', '.join(f'cast(:{name} as bigint[])' for name in SUMS)})"
            " on conflict (account, subject, day) do update set"
            f" {', '.join(f'{name} = w.{name} + excluded.{name}' for name in SUMS)}"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "day": [key[2] for key, _ in rows],
            **{name: [getattr(sums, name) for _, sums in rows] for name in SUMS},
        },
    )


async def add_sign_ins(session: AsyncSession, days: Collection[DayKey]) -> None:
    """Note days as sign-in days; one statement."""
    if not days:
        return
    rows = sorted(days)
    await session.execute(
        text(
            "insert into sign_in_day (account, subject, day) select * from unnest(cast(:account as text[]),"
            " cast(:subject as text[]), cast(:day as date[])) on conflict do nothing"
        ),
        {"account": [row[0] for row in rows], "subject": [row[1] for row in rows], "day": [row[2] for row in rows]},
    )


async def add_seen(session: AsyncSession, seen: Mapping[tuple[str, str], Seen]) -> None:
    """Widen firsts and lasts; one statement. Text is compared as bytes ("C"), as Python compares it."""
    if not seen:
        return
    rows = sorted(seen.items(), key=lambda row: row[0])
    follows = [row.follow for _, row in rows]
    await session.execute(
        text(
            "insert into fan as f (account, subject, first_seen, last_seen, first_follow,"
            " follow_time, follow_source, follow_id, following)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]),"
            " cast(:first_seen as timestamptz[]), cast(:last_seen as timestamptz[]),"
            " cast(:first_follow as timestamptz[]), cast(:follow_time as timestamptz[]),"
            " cast(:follow_source as text[]), cast(:follow_id as text[]), cast(:following as boolean[]))"
            " on conflict (account, subject) do update set"
            " first_seen = least(f.first_seen, excluded.first_seen),"
            " last_seen = greatest(f.last_seen, excluded.last_seen),"
            " first_follow = least(f.first_follow, excluded.first_follow),"
            f" follow_time = {_newer('follow_time')}, follow_source = {_newer('follow_source')},"
            f" follow_id = {_newer('follow_id')}, following = {_newer('following')}"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "first_seen": [row.first_seen for _, row in rows],
            "last_seen": [row.last_seen for _, row in rows],
            "first_follow": [row.first_follow for _, row in rows],
            "follow_time": [follow and follow[0] for follow in follows],
            "follow_source": [follow and follow[1] for follow in follows],
            "follow_id": [follow and follow[2] for follow in follows],
            "following": [follow and follow[3] for follow in follows],
        },
    )


def _newer(column: str) -> str:
    """SQL for the column's value from the newer of the two follow stamps (time, source, id)."""
    return (
        "case when excluded.follow_time is not null and (f.follow_time is null or"
        ' (excluded.follow_time, excluded.follow_source collate "C", excluded.follow_id collate "C")'
        ' > (f.follow_time, f.follow_source collate "C", f.follow_id collate "C"))'
        f" then excluded.{column} else f.{column} end"
    )


async def page_users(session: AsyncSession, account: str, after: str, limit: int) -> list[tuple[str, list[str]]]:
    """The next users by id after `after`, each with all subjects; up to `limit`."""
    rows = await session.execute(
        text(
            'select user_id, array_agg(subject order by subject collate "C") as subjects from alias'
            " where account = :account and user_id in (select distinct user_id from alias where account = :account"
            " and user_id > :after order by user_id limit :limit) group by user_id order by user_id"
        ),
        {"account": account, "after": after, "limit": limit},
    )
    return [(row.user_id, list(row.subjects)) for row in rows]


async def read_seen(session: AsyncSession, account: str, subjects: list[str]) -> dict[str, Seen]:
    """Firsts and lasts of each of `subjects` that has any."""
    rows = await session.execute(
        text("select * from fan where account = :account and subject = any(cast(:subjects as text[]))"),
        {"account": account, "subjects": subjects},
    )
    return {
        row.subject: Seen(
            row.first_seen,
            row.last_seen,
            row.first_follow,
            (row.follow_time, row.follow_source, row.follow_id, row.following) if row.follow_time else None,
        )
        for row in rows
    }


async def read_counts(session: AsyncSession, account: str, subjects: list[str]) -> list[tuple[str, date, str, int]]:
    """(subject, day, type, count) of all days of `subjects`."""
    rows = await session.execute(
        text(
            "select subject, day, type, count as number from activity_day"
            " where account = :account and subject = any(cast(:subjects as text[]))"
        ),
        {"account": account, "subjects": subjects},
    )
    return [(row.subject, row.day, row.type, row.number) for row in rows]


async def read_days(
    session: AsyncSession, account: str, subjects: Sequence[str], until: date
) -> list[tuple[date, str, int]]:
    """(day, type, count) over all `subjects`, up to the day `until`."""
    rows = await session.execute(
        text(
            "select day, type, cast(sum(count) as bigint) as number from activity_day"
            " where account = :account and subject = any(cast(:subjects as text[])) and day <= :until group by 1, 2"
        ),
        {"account": account, "subjects": subjects, "until": until},
    )
    return [(row.day, row.type, row.number) for row in rows]


async def read_hours(
    session: AsyncSession, account: str, subjects: Sequence[str], until: date
) -> list[tuple[int, int, int]]:
    """(weekday 0 = Monday, hour, count) over all `subjects` and days up to `until`."""
    rows = await session.execute(
        text(
            "select cast(extract(isodow from day) as integer) - 1 as weekday, hour,"
            " cast(sum(count) as bigint) as number from activity_hour"
            " where account = :account and subject = any(cast(:subjects as text[])) and day <= :until group by 1, 2"
        ),
        {"account": account, "subjects": subjects, "until": until},
    )
    return [(row.weekday, row.hour, row.number) for row in rows]


async def read_watched(
    session: AsyncSession, account: str, subjects: Sequence[str], until: date
) -> list[tuple[date, Watched]]:
    """The sums over views of each day up to `until`, over all `subjects`."""
    rows = await session.execute(
        text(
            f"select day, {', '.join(f'cast(sum({name}) as bigint)' for name in SUMS)} from watch_day"
            " where account = :account and subject = any(cast(:subjects as text[])) and day <= :until group by day"
        ),
        {"account": account, "subjects": subjects, "until": until},
    )
    return [(row[0], Watched(*row[1:])) for row in rows]


async def read_sign_ins(session: AsyncSession, account: str, subjects: Sequence[str]) -> list[date]:
    """The sign-in days of any of `subjects`."""
    rows = await session.scalars(
        text(
            "select distinct day from sign_in_day"
            " where account = :account and subject = any(cast(:subjects as text[])) order by day"
        ),
        {"account": account, "subjects": subjects},
    )
    return list(rows)


async def page_timeline(
    session: AsyncSession,
    account: str,
    subjects: list[str],
    types: list[str] | None,
    before: tuple[datetime, bytes] | None,
    limit: int,
) -> list[Any]:
    """Event rows of `subjects`, newest first, older than `before` (time, digest); up to `limit`."""
    rows = await session.execute(
        text(
            "select digest, account, source, id, type, subject, platform, time, timemark, received, applied, trust,"
            " backfill, data from event where account = :account and subject = any(cast(:subjects as text[]))"
            " and (cast(:types as text[]) is null or type = any(cast(:types as text[])))"
            " and (cast(:time as timestamptz) is null or (time, digest) < (:time, cast(:digest as bytea)))"
            " order by time desc, digest desc limit :limit"
        ),
        {
            "account": account,
            "subjects": subjects,
            "types": types,
            "time": before[0] if before else None,
            "digest": before[1] if before else None,
            "limit": limit,
        },
    )
    return list(rows.all())
