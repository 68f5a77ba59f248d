"""What fans did, added to the facts."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.orders import fold_orders
from services.profile.domain import activity as domain
from services.profile.domain import notices, traits
from services.profile.store import activity as store
from services.profile.store import known
from services.profile.usecases.links import fold_identifiers, link_by_evidence
from services.profile.usecases.zones import tell_zones


async def record(
    session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: Callable[[str], Account]
) -> None:
    """Add new events to the facts, link whom they show to be one person, tell in which zones they live. The number of
    statements is constant."""
    await add_facts(session, events, account_of)
    await link_by_evidence(session, events, now, account_of)
    await tell_zones(session, events, now)


async def fold(session: AsyncSession, events: list[AnyEvent], account_of: Callable[[str], Account]) -> None:
    """The facts alone, as a rebuild needs them: nothing is decided anew."""
    await add_facts(session, events, account_of)
    await fold_identifiers(session, events, account_of)


async def add_facts(session: AsyncSession, events: list[AnyEvent], account_of: Callable[[str], Account]) -> None:
    """Commutative, rows in key order; orders lock theirs, as the last of all facts."""
    difference = domain.fold(events, account_of)
    await store.add_counts(session, difference.counts)
    await store.add_hours(session, difference.hours)
    await store.add_watched(session, difference.watched)
    await store.add_sign_ins(session, difference.sign_ins)
    await store.add_seen(session, difference.seen)
    await known.add_traits(session, traits.fold(events))
    await known.add_notices(session, notices.fold(events))
    await fold_orders(session, events)
