"""All SQL of rewards. Whoever writes days, entries or a balance holds the holder's lock; see `lock_holders`."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.rewards.domain import Award, Holder, Runs


@dataclass(frozen=True, slots=True)
class HolderRow:
    """A locked holder: the ledger's name for the subject, and the user that the subject belongs to."""

    account_ref: UUID
    user_id: str


@dataclass(frozen=True, slots=True)
class Balance:
    """Points after all entries; `revision` counts the entries."""

    points: int
    revision: int


async def lock_holders(session: AsyncSession, holders: Iterable[Holder]) -> dict[Holder, HolderRow]:
    """Make the holders where they are missing, and lock them until the transaction ends, always in the same order.
    Two statements; their subjects are known to `alias`."""
    keys = sorted(set(holders))
    values = {"account": [key[0] for key in keys], "subject": [key[1] for key in keys]}
    await session.execute(
        text(
            "insert into holder (account, subject)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[])) on conflict do nothing"
        ),
        values,
    )
    rows = await session.execute(
        text(
            "select h.account, h.subject, h.account_ref, a.user_id"
            " from unnest(cast(:account as text[]), cast(:subject as text[])) as n(account, subject)"
            " join holder h using (account, subject) join alias a using (account, subject)"
            ' order by h.account collate "C", h.subject collate "C" for update of h'
        ),
        values,
    )
    return {(row.account, row.subject): HolderRow(row.account_ref, row.user_id) for row in rows}


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


async def add_entries(
    session: AsyncSession, awards: list[Award], holders: Mapping[Holder, HolderRow], now: datetime
) -> list[Award]:
    """Book `awards` and return those that were not booked before; one statement."""
    rows = await session.execute(
        text(
            "insert into ledger_entry (account, entry_id, account_ref, points, rule, rule_version, event_digest,"
            " event_time, created_at)"
            " select account, entry_id, account_ref, points, rule, rule_version, event_digest, event_time, :now"
            " from unnest(cast(:account as text[]), cast(:entry_id as uuid[]), cast(:account_ref as uuid[]),"
            " cast(:points as bigint[]), cast(:rule as text[]), cast(:rule_version as int[]),"
            " cast(:event_digest as bytea[]), cast(:event_time as timestamptz[]))"
            " as n(account, entry_id, account_ref, points, rule, rule_version, event_digest, event_time)"
            " on conflict do nothing returning entry_id"
        ),
        {
            "now": now,
            "account": [award.event.account for award in awards],
            "entry_id": [award.entry_id for award in awards],
            "account_ref": [holders[award.holder].account_ref for award in awards],
            "points": [award.points for award in awards],
            "rule": [award.rule.key for award in awards],
            "rule_version": [award.rule.version for award in awards],
            "event_digest": [award.digest for award in awards],
            "event_time": [award.event.time for award in awards],
        },
    )
    booked = set(rows.scalars())
    return [award for award in awards if award.entry_id in booked]


async def add_to_balances(
    session: AsyncSession, awards: list[Award], holders: Mapping[Holder, HolderRow]
) -> dict[Holder, Balance]:
    """Add booked `awards` to the balances and return these as they are then; one statement."""
    points: Counter[Holder] = Counter()
    entries: Counter[Holder] = Counter()
    for award in awards:
        points[award.holder] += award.points
        entries[award.holder] += 1
    rows = await session.execute(
        text(
            "insert into balance as b (account, account_ref, points, revision)"
            " select * from unnest(cast(:account as text[]), cast(:account_ref as uuid[]), cast(:points as bigint[]),"
            " cast(:entries as bigint[]))"
            " on conflict (account, account_ref) do update set"
            " points = b.points + excluded.points, revision = b.revision + excluded.revision"
            " returning account_ref, points, revision"
        ),
        {
            "account": [holder[0] for holder in points],
            "account_ref": [holders[holder].account_ref for holder in points],
            "points": list(points.values()),
            "entries": [entries[holder] for holder in points],
        },
    )
    by_ref = {row.account_ref: Balance(row.points, row.revision) for row in rows}
    return {holder: by_ref[holders[holder].account_ref] for holder in points}


async def recount_balances(session: AsyncSession) -> None:
    """Fill the empty table of balances from the entries; one statement."""
    await session.execute(
        text(
            "insert into balance (account, account_ref, points, revision)"
            " select account, account_ref, sum(points), count(*) from ledger_entry group by account, account_ref"
        )
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


async def read_balance(session: AsyncSession, account: str, subjects: Collection[str]) -> int:
    """Points of all `subjects` together."""
    points = await session.scalar(
        text(
            "select cast(coalesce(sum(b.points), 0) as bigint)"
            " from holder h join balance b using (account, account_ref)"
            " where h.account = :account and h.subject = any(cast(:subjects as text[]))"
        ),
        {"account": account, "subjects": list(subjects)},
    )
    return int(points or 0)


async def read_totals(
    session: AsyncSession, account: str, subjects: Collection[str], known_at: datetime | None
) -> list[tuple[str, int, int]]:
    """(rule, points, number of entries) of what had been booked for `subjects` by `known_at`, ordered by rule."""
    rows = await session.execute(
        text(
            "select e.rule, cast(sum(e.points) as bigint) as points, count(*) as entries"
            " from holder h join ledger_entry e using (account, account_ref)"
            " where h.account = :account and h.subject = any(cast(:subjects as text[]))"
            " and (cast(:known_at as timestamptz) is null or e.created_at <= :known_at) group by e.rule order by e.rule"
        ),
        {"account": account, "subjects": list(subjects), "known_at": known_at},
    )
    return [(row.rule, row.points, row.entries) for row in rows]


async def page_ledger(
    session: AsyncSession,
    account: str,
    subjects: Collection[str],
    before: tuple[datetime, datetime, UUID] | None,
    limit: int,
) -> list[Any]:
    """Entries of `subjects` with the events that caused them, newest first, older than `before` (created_at,
    event_time, entry_id); up to `limit`."""
    rows = await session.execute(
        text(
            "select e.entry_id, e.points, e.rule, e.rule_version, e.created_at, e.event_time, h.subject,"
            " v.source as event_source, v.id as event_id, v.type as event_type"
            " from holder h cross join lateral ("
            " select * from ledger_entry l where l.account = h.account and l.account_ref = h.account_ref"
            " and (cast(:created_at as timestamptz) is null or (l.created_at, l.event_time, l.entry_id)"
            " < (:created_at, cast(:event_time as timestamptz), cast(:entry_id as uuid)))"
            " order by l.created_at desc, l.event_time desc, l.entry_id desc limit :limit) e"
            " join event v on v.digest = e.event_digest"
            " where h.account = :account and h.subject = any(cast(:subjects as text[]))"
            " order by e.created_at desc, e.event_time desc, e.entry_id desc limit :limit"
        ),
        {
            "account": account,
            "subjects": list(subjects),
            "created_at": before[0] if before else None,
            "event_time": before[1] if before else None,
            "entry_id": before[2] if before else None,
            "limit": limit,
        },
    )
    return list(rows.all())
