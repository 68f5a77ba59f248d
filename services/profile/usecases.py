"""profile's business actions; shared by whatever brings events."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from services.profile import domain, store


async def record_activity(
    session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: Callable[[str], Account]
) -> None:
    """Add new events to the facts: two statements, commutative, rows in key order."""
    difference = domain.fold(events, lambda account: account_of(account).zone)
    await store.add_counts(session, difference.counts)
    await store.add_seen(session, difference.seen)
