"""The history of moves between segments, and what it adds up to: who was known to be where, sizes, flows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.segmentation.store import columns


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
        columns(names, list(map(attrgetter(*names), changes))),
    )


async def read_memberships(
    session: AsyncSession, account: str, user_id: str, known_at: datetime, layering: str | None
) -> list[MembershipChange]:
    """The last move in each layering, or in one, that was decided by `known_at`."""
    rows = await session.execute(
        text(
            f"select distinct on (layering) {CHANGE} from membership_change where account = :account"
            " and user_id = :user_id and decided_at <= :known_at"
            " and (cast(:layering as text) is null or layering = :layering) order by layering, revision desc"
        ),
        {"account": account, "user_id": user_id, "known_at": known_at, "layering": layering},
    )
    return [MembershipChange(*row) for row in rows]


async def page_changes(
    session: AsyncSession,
    account: str,
    user_id: str,
    known_at: datetime,
    layering: str | None,
    before: tuple[datetime, str, int] | None,
    limit: int,
) -> list[MembershipChange]:
    """Moves in all layerings, or in one, decided by `known_at`, newest first, after the one at `before` (decided_at,
    layering, revision)."""
    rows = await session.execute(
        text(
            f"select {CHANGE} from membership_change where account = :account and user_id = :user_id"
            " and decided_at <= :known_at and (cast(:only as text) is null or layering = :only)"
            " and (cast(:time as timestamptz) is null"
            " or (decided_at, layering, revision) < (:time, :layering, :revision))"
            " order by decided_at desc, layering desc, revision desc limit :limit"
        ),
        {
            "account": account,
            "user_id": user_id,
            "known_at": known_at,
            "only": layering,
            "time": before[0] if before else None,
            "layering": before[1] if before else None,
            "revision": before[2] if before else None,
            "limit": limit,
        },
    )
    return [MembershipChange(*row) for row in rows]


async def page_known_members(
    session: AsyncSession, account: str, segment: str, known_at: datetime, after: str, limit: int
) -> list[MembershipChange]:
    """The next users by id after `after` whose last move by `known_at` led into `segment`, with that move."""
    layering = segment.partition(".")[0]
    rows = await session.execute(
        text(
            # User after user along one index, the last move of each along another: a page costs what is on it.
            "select last.* from (select distinct user_id from membership_change"
            " where account = :account and segment_to = :segment and user_id > :after order by user_id) u"
            f" cross join lateral (select {CHANGE} from membership_change where account = :account"
            " and user_id = u.user_id and layering = :layering and decided_at <= :known_at"
            " order by revision desc limit 1) last"
            " where last.segment_to = :segment order by u.user_id limit :limit"
        ),
        {
            "account": account,
            "segment": segment,
            "layering": layering,
            "known_at": known_at,
            "after": after,
            "limit": limit,
        },
    )
    return [MembershipChange(*row) for row in rows]


async def count_by_day(
    session: AsyncSession, account: str, layering: str, midnights: Sequence[datetime]
) -> list[tuple[int, str, int]]:
    """(day, segment, users more or fewer): by how much each segment has changed on each of the days that begin at
    `midnights`; the last of these is the end. Day 0 is all the time before the first of them."""
    rows = await session.execute(
        text(
            "select width_bucket(decided_at, cast(:midnights as timestamptz[])) as day, segment, sum(change) as change"
            " from (select decided_at, segment_to as segment, 1 as change from membership_change"
            " where account = :account and layering = :layering and decided_at < :end"
            " union all select decided_at, segment_from, -1 from membership_change"
            " where account = :account and layering = :layering and decided_at < :end) as changes"
            " where segment is not null group by day, segment"
        ),
        {"account": account, "layering": layering, "midnights": list(midnights), "end": midnights[-1]},
    )
    return [(row.day, row.segment, int(row.change)) for row in rows]


async def count_flows(
    session: AsyncSession, account: str, layering: str, midnights: Sequence[datetime]
) -> list[tuple[int, str | None, str | None, int]]:
    """(day, from, to, moves) of the days that begin at `midnights`, counted from 1; the last of these is the end."""
    rows = await session.execute(
        text(
            "select width_bucket(decided_at, cast(:midnights as timestamptz[])) as day, segment_from, segment_to,"
            " count(*) as moves from membership_change where account = :account and layering = :layering"
            " and decided_at >= :begin and decided_at < :end group by day, segment_from, segment_to"
            " order by day, segment_from nulls first, segment_to nulls first"
        ),
        {
            "account": account,
            "layering": layering,
            "midnights": list(midnights),
            "begin": midnights[0],
            "end": midnights[-1],
        },
    )
    return [(row.day, row.segment_from, row.segment_to, row.moves) for row in rows]
