"""Contact policies: the newest version of each account."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.engagement.domain.gates import Policy
from services.engagement.domain.policies import BUILT_IN_POLICY, PolicyVersion, policy_of, stored_form


async def read_policies(session: AsyncSession, accounts: Iterable[str]) -> dict[str, PolicyVersion]:
    """The policy in effect of each account; one statement."""
    names = sorted(set(accounts))
    rows = await session.execute(
        text(
            "select distinct on (account) account, version, policy, changed_at, changed_by from contact_policy"
            " where account = any(cast(:accounts as text[])) order by account, version desc"
        ),
        {"accounts": names},
    )
    return dict.fromkeys(names, BUILT_IN_POLICY) | {row.account: _version(row) for row in rows}


def _version(row: Any) -> PolicyVersion:
    return PolicyVersion(row.version, policy_of(row.policy), row.changed_at, row.changed_by)


async def lock_policy(session: AsyncSession, account: str) -> None:
    """Nobody else changes this account's policy until the commit."""
    await session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"contact policy {account}"}
    )


async def add_policy(
    session: AsyncSession, account: str, version: int, policy: Policy, now: datetime, changed_by: str
) -> None:
    """Store a version. Its number must be new."""
    await session.execute(
        text(
            "insert into contact_policy (account, version, policy, changed_at, changed_by)"
            " values (:account, :version, cast(:policy as jsonb), :changed_at, :changed_by)"
        ),
        {
            "account": account,
            "version": version,
            "policy": orjson.dumps(stored_form(policy)).decode(),
            "changed_at": now,
            "changed_by": changed_by,
        },
    )
