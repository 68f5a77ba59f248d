"""Changing the contact policy: every change is a new version, with who made it and when."""

from datetime import datetime

from libs.common.db import AsyncSession
from services.engagement.domain.gates import Policy
from services.engagement.domain.policies import PolicyVersion
from services.engagement.store import policies as store
from services.engagement.usecases.journeys import check_if_match


async def put_policy(
    session: AsyncSession, account: str, policy: Policy, if_match: str | None, now: datetime, by: str
) -> PolicyVersion:
    """Store the next version, unless the newest one says the same. Raises Problem 412."""
    await store.lock_policy(session, account)
    newest = (await store.read_policies(session, [account]))[account]
    check_if_match(newest.version, if_match)
    if newest.policy == policy:
        return newest
    version = newest.version + 1
    await store.add_policy(session, account, version, policy, now, by)
    return PolicyVersion(version, policy, now, by)
