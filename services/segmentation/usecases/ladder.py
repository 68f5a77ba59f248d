"""The ladder as it is announced: moved by follows, interactions, orders and links, never by time alone."""

from collections.abc import Callable, Mapping
from datetime import datetime

from libs.common.config import Account
from libs.common.db import AsyncSession
from services.segmentation.domain.ladder import Facts, stand
from services.segmentation.store import UserKey
from services.segmentation.store.ladder import RungRow, lock_rungs, read_facts, update_rungs
from services.segmentation.store.users import page_users
from services.segmentation.usecases.moves import Cause, Move, find_change, revision_in, tell

CORRECTED_AT_ONCE = 1000


async def place(
    session: AsyncSession,
    users: Mapping[UserKey, Cause],
    now: datetime,
    account_of: Callable[[str], Account],
    reason: str = "event",
) -> list[Move]:
    """Place users whose facts have changed on the rung where they belong; returns the moves that are to be told. What
    they follow and pay is read after their rows are locked, so whichever transaction comes last sees what all have
    added."""
    if not users:
        return []
    rows = await lock_rungs(session, users)
    facts = await read_facts(session, users, lambda account: account_of(account).zone)
    updated, moves = [], []
    for row in rows:
        key = (row.account, row.user_id)
        standing = stand(facts.get(key, Facts()))
        after = RungRow(
            account=row.account,
            user_id=row.user_id,
            state=standing.rung,
            since=standing.since,
            revision=revision_in("ladder", row, standing.rung, now),
            updated_at=max(now, row.updated_at or now),
        )
        if (after.state, after.since) != (row.state, row.since):
            updated.append(after)
        if change := find_change("ladder", row, after, reason):
            moves.append(Move(change, users[key]))
    await update_rungs(session, updated)
    return moves


async def correct(session: AsyncSession, now: datetime, account_of: Callable[[str], Account]) -> int:
    """After a rebuild of the facts: place every user again, and tell where that differs from what was announced."""
    moved = 0
    last: UserKey = ("", "")
    while subjects := await page_users(session, last, CORRECTED_AT_ONCE):
        causes = {user: Cause(subject) for user, subject in subjects.items()}
        moves = await place(session, causes, now, account_of, reason="rule_changed")
        await tell(session, moves)
        moved += len(moves)
        last = max(subjects)
    return moved
