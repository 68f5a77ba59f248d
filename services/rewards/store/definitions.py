"""Rules and tables of levels: every version that an account has stored."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.rewards.domain.levels import Tables, TableVersion, parse_table
from services.rewards.domain.rules import Rules, RuleVersion, parse_rule


async def read_rules(session: AsyncSession, accounts: Collection[str]) -> dict[str, Rules]:
    """All versions of the rules of each of `accounts`, built-in ones included; one statement."""
    rows = await session.execute(
        text(
            "select account, key, version, effective_from, cast(definition as text) as definition, created_at,"
            " created_by from earn_rule where account = any(cast(:accounts as text[]))"
        ),
        {"accounts": sorted(accounts)},
    )
    stored: defaultdict[str, list[RuleVersion]] = defaultdict(list)
    for row in rows:
        stored[row.account].append(
            RuleVersion(
                row.key,
                row.version,
                parse_rule(row.definition),
                row.effective_from,
                row.created_at,
                row.created_by,
            )
        )
    return {account: Rules(stored.get(account, ())) for account in accounts}


async def add_rule(session: AsyncSession, account: str, version: RuleVersion) -> bool:
    """Store a version; False when it is there already."""
    added = await session.scalar(
        text(
            "insert into earn_rule (account, key, version, effective_from, definition, created_at, created_by)"
            " values (:account, :key, :version, :effective_from, cast(:definition as jsonb), :created_at, :created_by)"
            " on conflict do nothing returning version"
        ),
        {
            "account": account,
            "key": version.key,
            "version": version.version,
            "effective_from": version.effective_from,
            "definition": version.rule.model_dump_json(),
            "created_at": version.created_at,
            "created_by": version.created_by,
        },
    )
    return added is not None


async def read_tables(
    session: AsyncSession, accounts: Collection[str], known_at: datetime | None = None
) -> dict[str, Tables]:
    """All versions of the level tables of each of `accounts`, the built-in one included; one statement."""
    rows = await session.execute(
        text(
            "select account, version, effective_from, cast(definition as text) as definition, created_at, created_by"
            " from level_table where account = any(cast(:accounts as text[]))"
            " and (cast(:known_at as timestamptz) is null or created_at <= :known_at)"
        ),
        {"accounts": sorted(accounts), "known_at": known_at},
    )
    stored: defaultdict[str, list[TableVersion]] = defaultdict(list)
    for row in rows:
        stored[row.account].append(
            TableVersion(row.version, parse_table(row.definition), row.effective_from, row.created_at, row.created_by)
        )
    return {account: Tables(stored.get(account, ())) for account in accounts}


async def add_table(session: AsyncSession, account: str, made: TableVersion) -> None:
    """Store a version, and let everybody whom it may lift be looked at on the day on which it takes effect. The groups
    of the account are locked exclusively, so nobody is being judged by an older one meanwhile."""
    await session.execute(
        text(
            "insert into level_table (account, version, effective_from, definition, created_at, created_by)"
            " values (:account, :version, :effective_from, cast(:definition as jsonb), :created_at, :created_by)"
        ),
        {
            "account": account,
            "version": made.version,
            "effective_from": made.effective_from,
            "definition": made.table.model_dump_json(),
            "created_at": made.created_at,
            "created_by": made.created_by,
        },
    )
    await session.execute(
        text(
            "insert into level_state as s"
            " (account, user_id, level, reached_on, flips_on, peak, table_version, revision, updated_at)"
            " select h.account, a.user_id, 0, null, cast(:day as date), 0, 0, 0, cast(:now as timestamptz)"
            " from holder h"
            " join alias a on a.account = h.account and a.subject = h.subject"
            " join balance b on b.account = h.account and b.account_ref = h.account_ref"
            " where h.account = :account group by h.account, a.user_id having sum(b.growth) >= :least"
            " on conflict (account, user_id) do update set flips_on = least(s.flips_on, excluded.flips_on)"
        ),
        {
            "account": account,
            "day": made.effective_from,
            "now": made.created_at,
            "least": made.table.levels[1].growth if len(made.table.levels) > 1 else 0,
        },
    )
