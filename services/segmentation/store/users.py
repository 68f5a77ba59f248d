"""Users by their ids."""

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.segmentation.store import UserKey, columns


async def find_own_subjects(session: AsyncSession, users: Collection[UserKey]) -> dict[UserKey, str]:
    """The subject of which each user id is made, whoever it belongs to now."""
    rows = await session.execute(
        text(
            "select a.account, a.own_id, a.subject from alias a"
            " join unnest(cast(:account as text[]), cast(:user_id as text[])) as n(account, user_id)"
            " on n.account = a.account and n.user_id = a.own_id"
        ),
        columns(("account", "user_id"), sorted(users)),
    )
    return {(row.account, row.own_id): row.subject for row in rows}


async def page_users(session: AsyncSession, after: UserKey, limit: int) -> dict[UserKey, str]:
    """The next user ids in key order, those of users who are part of another one too, each with its subject."""
    rows = await session.execute(
        text(
            'select account, own_id, subject from alias where (account collate "C", own_id collate "C")'
            ' > (:account, :user_id) order by account collate "C", own_id collate "C" limit :limit'
        ),
        {"account": after[0], "user_id": after[1], "limit": limit},
    )
    return {(row.account, row.own_id): row.subject for row in rows}
