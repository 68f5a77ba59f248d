"""Sign-in days."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.rewards.domain.awards import Holder
from services.rewards.domain.days import Runs


async def read_runs(session: AsyncSession, holders: Collection[Holder]) -> dict[Holder, Runs]:
    """The sign-in days of `holders` as runs of days in a row; one statement."""
    if not holders:
        return {}
    rows = await session.execute(
        text(
            "select account, subject, min(day) as first, count(*) as length from ("
            " select account, subject, day,"
            " day - cast(row_number() over (partition by account, subject order by day) as int) as island"
            " from unnest(cast(:account as text[]), cast(:subject as text[])) as n(account, subject)"
            " join sign_in_day using (account, subject)) d group by account, subject, island"
        ),
        {"account": [holder[0] for holder in holders], "subject": [holder[1] for holder in holders]},
    )
    found: defaultdict[Holder, list[tuple[date, int]]] = defaultdict(list)
    for row in rows:
        found[row.account, row.subject].append((row.first, row.length))
    return {holder: Runs(runs) for holder, runs in found.items()}


async def add_days(session: AsyncSession, days: Mapping[tuple[str, str, date], datetime]) -> None:
    """Record sign-in days; a day keeps its earliest time. One statement."""
    if not days:
        return
    rows = sorted(days.items())
    await session.execute(
        text(
            "insert into sign_in_day as d (account, subject, day, time)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:day as date[]),"
            " cast(:time as timestamptz[]))"
            " on conflict (account, subject, day) do update set time = excluded.time where excluded.time < d.time"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "day": [key[2] for key, _ in rows],
            "time": [time for _, time in rows],
        },
    )


async def read_days(
    session: AsyncSession, account: str, subjects: Collection[str], as_of: datetime | None = None
) -> dict[str, set[date]]:
    """The days of each of `subjects` on which it signed in, up to the instant `as_of`."""
    rows = await session.execute(
        text(
            "select subject, day from sign_in_day"
            " where account = :account and subject = any(cast(:subjects as text[]))"
            " and (cast(:as_of as timestamptz) is null or time <= :as_of)"
        ),
        {"account": account, "subjects": list(subjects), "as_of": as_of},
    )
    days: dict[str, set[date]] = {subject: set() for subject in subjects}
    for row in rows:
        days[row.subject].add(row.day)
    return days
