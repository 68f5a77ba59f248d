"""What a batch of events changes, facts first; and the same facts alone, as a rebuild folds them."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime

from libs.common import identity, orders
from libs.common.config import Account
from libs.common.days import local_day
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.identity import GroupChange
from services.segmentation.domain.ladder import is_interaction
from services.segmentation.domain.lifecycle import is_activity
from services.segmentation.store import SubjectKey, UserKey
from services.segmentation.store.ladder import add_followings, add_interactions
from services.segmentation.store.lifecycle import ActiveDay, add_days
from services.segmentation.store.users import find_own_subjects
from services.segmentation.usecases import ladder, lifecycle
from services.segmentation.usecases.moves import Cause, tell

AccountOf = Callable[[str], Account]


@dataclass
class News:
    """What events have added to the facts: new active days, and subjects whose rung may be another now; each with the
    events that did it."""

    days: dict[ActiveDay, AnyEvent] = field(default_factory=dict)
    climbers: dict[SubjectKey, list[AnyEvent]] = field(default_factory=lambda: defaultdict(list))


async def record(session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: AccountOf) -> None:
    """Add `events` to the facts, and move the users for whom that makes a difference to where they belong now."""
    changes = await identity.fold_links(session, events)
    if changes:
        await _regroup(session, changes, now, account_of)
    news = await _add_facts(session, events, account_of)
    subjects = {(account, subject) for account, subject, _ in news.days} | news.climbers.keys()
    if not subjects:
        return
    user_of = {key: (key[0], user_id) for key, user_id in (await identity.find_users(session, subjects)).items()}
    active: dict[UserKey, dict[date, AnyEvent]] = defaultdict(dict)
    for (account, subject, day), event in news.days.items():
        active[user_of[account, subject]][day] = event
    begun, moves = await lifecycle.place(session, active, now, account_of) if active else (set(), [])

    causes: dict[UserKey, list[tuple[str, AnyEvent]]] = defaultdict(list)
    for key, caused_by in news.climbers.items():
        causes[user_of[key]] += [(key[1], event) for event in caused_by]
    for (account, subject, _), event in news.days.items():
        if user_of[account, subject] in begun:
            causes[user_of[account, subject]].append((subject, event))
    moves += await ladder.place(session, {user: _newest(found) for user, found in causes.items()}, now, account_of)
    await tell(session, moves)


async def fold_facts(session: AsyncSession, events: list[AnyEvent], account_of: AccountOf) -> None:
    """The facts in `events` alone, as a rebuild needs them: nobody is moved."""
    await _add_facts(session, events, account_of)


async def correct(session: AsyncSession, now: datetime, account_of: AccountOf) -> int:
    """After a rebuild: put right what was announced; returns how many moves that were."""
    return await lifecycle.correct(session, now, account_of) + await ladder.correct(session, now, account_of)


async def _regroup(session: AsyncSession, changes: Iterable[GroupChange], now: datetime, account_of: AccountOf) -> None:
    """After links or unlinks: users that are now part of another one leave their segments, all others are placed by
    the facts of the subjects that they have now."""
    users = {(change.account, user_id) for change in changes for user_id in (change.user_id, *change.former_user_ids)}
    causes = {user: Cause(subject) for user, subject in (await find_own_subjects(session, users)).items()}
    moves = await lifecycle.place_merged(session, causes, now, account_of)
    moves += await ladder.place(session, causes, now, account_of, reason="merged")
    await tell(session, moves)


async def _add_facts(session: AsyncSession, events: list[AnyEvent], account_of: AccountOf) -> News:
    news = News()
    days: dict[ActiveDay, AnyEvent] = {}
    interactions: dict[SubjectKey, AnyEvent] = {}
    followings: dict[SubjectKey, list[AnyEvent]] = defaultdict(list)
    for event in events:
        if event.subject is None:
            continue
        key = (event.account, event.subject)
        if is_activity(event):
            day = (*key, local_day(event.time, account_of(event.account).zone))
            if day not in days or (days[day].backfill and not event.backfill):
                days[day] = event
        if is_interaction(event) and (key not in interactions or event.time < interactions[key].time):
            interactions[key] = event
        if event.type in ("follow", "unfollow"):
            followings[key].append(event)

    news.days = {day: days[day] for day in await add_days(session, days)}
    for key in await add_followings(
        session,
        [
            (*key, event.time, event.source, event.id, event.type == "follow")
            for key, found in followings.items()
            for event in found
        ],
    ):
        news.climbers[key] += followings[key]
    for key in await add_interactions(session, {key: event.time for key, event in interactions.items()}):
        news.climbers[key].append(interactions[key])
    await _add_orders(session, events, news.climbers)
    return news


async def _add_orders(
    session: AsyncSession, events: list[AnyEvent], climbers: dict[SubjectKey, list[AnyEvent]]
) -> None:
    folded = await orders.fold_orders(session, events)
    subjects = folded.subjects()
    # A buyer whom only a look-up has named is new here.
    await identity.add_subjects(session, subjects)
    if not subjects:
        return
    by_order: dict[tuple[str, str], list[AnyEvent]] = defaultdict(list)
    by_refund: dict[tuple[str, str], list[AnyEvent]] = defaultdict(list)
    for event in events:
        if event.type in orders.ORDER_TYPES and hasattr(event.data, "order_id"):
            by_order[event.account, event.data.order_id or ""].append(event)
            by_refund[event.account, getattr(event.data, "refund_id", "")].append(event)
    for change in folded.orders:
        states = [order for order in (change.before, change.after) if order]
        # An event that names no order, or another one, may bring or take a refund.
        caused_by = by_order[change.after.account, change.after.order_id] or [
            event
            for order in states
            for refund in order.refunds
            for event in by_refund[refund.account, refund.refund_id]
        ]
        for order in states:
            if order.buyer:
                climbers[order.account, order.buyer].extend(caused_by)
    for pair in folded.refunds:
        for refund in filter(None, pair):
            if refund.subject:
                climbers[refund.account, refund.subject].extend(by_refund[refund.account, refund.refund_id])


def _newest(causes: list[tuple[str, AnyEvent]]) -> Cause:
    subject, event = max(causes, key=lambda cause: (cause[1].time, cause[1].source, cause[1].id))
    return Cause(subject, event.traceparent, all(cause.backfill for _, cause in causes))
