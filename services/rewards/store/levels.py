"""Growth value by day, and the level last told of each user. Written under the locks of all the user's holders."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.rewards.domain.awards import UserKey
from services.rewards.domain.levels import Kept


@dataclass(frozen=True, slots=True)
class LevelState:
    """What is kept of a user's level; `revision` counts its changes."""

    user: UserKey
    kept: Kept
    revision: int
    updated_at: datetime


async def read_states(session: AsyncSession, users: Collection[UserKey]) -> dict[UserKey, LevelState]:
    """Of `users` that have one; one statement."""
    rows = await session.execute(
        text(
            "select s.* from level_state s join unnest(cast(:account as text[]), cast(:user_id as text[]))"
            " as n(account, user_id) on n.account = s.account and n.user_id = s.user_id"
        ),
        {"account": [user[0] for user in users], "user_id": [user[1] for user in users]},
    )
    return {(row.account, row.user_id): _state(row) for row in rows}


async def write_states(session: AsyncSession, states: Sequence[LevelState]) -> None:
    """Keep `states`; one statement."""
    if not states:
        return
    ordered = sorted(states, key=lambda state: state.user)
    await session.execute(
        text(
            "insert into level_state as s"
            " (account, user_id, level, reached_on, flips_on, peak, table_version, revision, updated_at)"
            " select * from unnest(cast(:account as text[]), cast(:user_id as text[]), cast(:level as int[]),"
            " cast(:reached_on as date[]), cast(:flips_on as date[]), cast(:peak as bigint[]),"
            " cast(:table_version as int[]), cast(:revision as bigint[]), cast(:updated_at as timestamptz[]))"
            " on conflict (account, user_id) do update set level = excluded.level, reached_on = excluded.reached_on,"
            " flips_on = excluded.flips_on, peak = excluded.peak, table_version = excluded.table_version,"
            " revision = excluded.revision, updated_at = excluded.updated_at"
        ),
        {
            "account": [state.user[0] for state in ordered],
            "user_id": [state.user[1] for state in ordered],
            "level": [state.kept.level for state in ordered],
            "reached_on": [state.kept.reached_on for state in ordered],
            "flips_on": [state.kept.flips_on for state in ordered],
            "peak": [state.kept.peak for state in ordered],
            "table_version": [state.kept.table_version for state in ordered],
            "revision": [state.revision for state in ordered],
            "updated_at": [state.updated_at for state in ordered],
        },
    )


async def read_growth(
    session: AsyncSession, zones: Mapping[UserKey, str], known_at: datetime | None = None
) -> dict[UserKey, dict[date, int]]:
    """Growth value by local day of each user (in his account's zone, by name), over all his subjects: what had been
    booked by `known_at`. One statement."""
    users = list(zones)
    rows = await session.execute(
        text(
            "select n.account, n.user_id, cast(e.event_time at time zone n.zone as date) as day,"
            " cast(sum(e.growth) as bigint) as growth"
            " from unnest(cast(:account as text[]), cast(:user_id as text[]), cast(:zone as text[]))"
            " as n(account, user_id, zone)"
            " join alias a on a.account = n.account and a.user_id = n.user_id"
            " join holder h on h.account = a.account and h.subject = a.subject"
            " join ledger_entry e on e.account = h.account and e.account_ref = h.account_ref and e.growth <> 0"
            " where cast(:known_at as timestamptz) is null or e.created_at <= :known_at group by 1, 2, 3"
        ),
        {
            "account": [user[0] for user in users],
            "user_id": [user[1] for user in users],
            "zone": [zones[user] for user in users],
            "known_at": known_at,
        },
    )
    found: defaultdict[UserKey, dict[date, int]] = defaultdict(dict)
    for row in rows:
        found[row.account, row.user_id][row.day] = row.growth
    return {user: found.get(user, {}) for user in users}


async def read_growth_by_rule(
    session: AsyncSession,
    account: str,
    subjects: Collection[str],
    since: datetime,
    until: datetime,
    known_at: datetime | None,
) -> dict[str, int]:
    """Growth value of `subjects` from deeds in [since, until), by rule: what had been booked by `known_at`."""
    rows = await session.execute(
        text(
            "select e.rule, cast(sum(e.growth) as bigint) as growth"
            " from holder h join ledger_entry e on e.account = h.account and e.account_ref = h.account_ref"
            " where h.account = :account and h.subject = any(cast(:subjects as text[])) and e.growth <> 0"
            " and e.event_time >= :since and e.event_time < :until"
            " and (cast(:known_at as timestamptz) is null or e.created_at <= :known_at)"
            " group by e.rule order by e.rule"
        ),
        {"account": account, "subjects": list(subjects), "since": since, "until": until, "known_at": known_at},
    )
    return {row.rule: row.growth for row in rows}


async def read_oldest_flip(session: AsyncSession, account: str, day: date) -> date | None:
    """The longest overdue of the days on which somebody's level has to be looked at; None when none is due on `day`."""
    oldest = await session.execute(
        text("select min(flips_on) from level_state where account = :account and flips_on <= :day"),
        {"account": account, "day": day},
    )
    found: date | None = oldest.scalar_one()
    return found


async def find_due(session: AsyncSession, account: str, day: date, limit: int) -> list[str]:
    """The users whose level has to be looked at on `day`, the longest overdue first."""
    rows = await session.execute(
        text(
            "select user_id from level_state where account = :account and flips_on <= :day"
            " order by flips_on, user_id limit :limit"
        ),
        {"account": account, "day": day, "limit": limit},
    )
    return list(rows.scalars())


async def rest(session: AsyncSession, account: str, users: Collection[str]) -> None:
    """Nothing is due of `users` who have no subjects left; what was told of them stays."""
    await session.execute(
        text(
            "update level_state set flips_on = null"
            " where account = :account and user_id = any(cast(:users as text[])) and flips_on is not null"
        ),
        {"account": account, "users": list(users)},
    )


def _state(row: Any) -> LevelState:
    kept = Kept(row.level, row.reached_on, row.flips_on, row.peak, row.table_version)
    return LevelState((row.account, row.user_id), kept, row.revision, row.updated_at)
