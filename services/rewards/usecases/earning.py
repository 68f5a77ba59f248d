"""Points for deeds."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime

from prometheus_client import Counter

from libs.common import identity, outbox
from libs.common.config import Account
from libs.common.days import sign_in_day
from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent
from libs.common.events.orders import OrderEvent
from libs.common.orders import ORDER_TYPES, Folded, OrderKey, fold_orders
from services.rewards.domain import awards as domain
from services.rewards.domain.awards import Award, Deed
from services.rewards.domain.rules import Rules
from services.rewards.store import days, definitions, holders, ledger
from services.rewards.store.ledger import Balance
from services.rewards.usecases import SERVICE, levels, notices

AccountOf = Callable[[str], Account]

POINTS_AWARDED = Counter(
    "superfan_points_awarded_total",
    "Points booked and committed",
    ["service", "rule"],
)
POINTS_CAPPED = Counter(
    "superfan_points_capped_total",
    "Points that a cap kept from being awarded",
    ["service", "rule"],
)
SIGN_INS = Counter(
    "superfan_sign_ins_total", "Sign-in events by outcome: new_day earns, same_day does not", ["service", "outcome"]
)


def keep_data(event_type: str) -> bool:
    """The content of sign-ins is read again, for its offset decides the day, and that of orders."""
    return event_type == "sign_in" or event_type in ORDER_TYPES


@dataclass(frozen=True, slots=True)
class Booked:
    """What events brought: entries, and days on which somebody had not signed in yet."""

    awards: list[Award] = field(default_factory=list)
    new_days: int = 0


async def award(session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: AccountOf) -> Booked:
    """Apply the rules to new events and tell the others; returns what was booked.

    The number of statements is constant. Locks come first, so that what is read after them stays true until the end:
    deeds of one person may arrive by HTTP and from several topics at once.
    """
    orders = await _orders(session, events)
    deeds = [*(domain.deed_of(event) for event in events if domain.is_deed(event)), *orders]
    if not deeds:
        return Booked()
    rules = await definitions.read_rules(session, {deed.holder[0] for deed in deeds})
    sign_ins = [deed for deed in deeds if deed.type == "sign_in"]
    awards = domain.judge((deed for deed in deeds if deed.type != "sign_in"), rules)
    if not awards and not sign_ins:
        return Booked()
    locked = await holders.lock(session, (deed.holder for deed in [*sign_ins, *(award.deed for award in awards)]))
    signed_in = domain.SignedIn()
    if sign_ins:
        known = await days.read_runs(session, {deed.holder for deed in sign_ins})
        signed_in = domain.sign_in(sign_ins, rules, known, day_by(account_of))
        await days.add_days(session, signed_in.days)
        place = {id(deed): number for number, deed in enumerate(deeds)}
        awards = sorted([*awards, *signed_in.awards], key=lambda award: place[id(award.deed)])
    booked: list[Award] = []
    if awards:
        await _apply_caps(session, awards, locked, account_of)
        booked = await ledger.add_awards(session, awards, locked, now)
    if booked:
        balances = await _add_to_balances(session, booked, locked)
        told = notices.of_awards(booked, locked, balances, now)
        told += await levels.follow(session, booked, locked, balances, now, account_of)
        await outbox.add(session, told)
    after_commit(session, lambda: _count(booked, len(sign_ins), signed_in.new_days))
    return Booked(booked, signed_in.new_days)


async def _orders(session: AsyncSession, events: list[AnyEvent]) -> list[Deed]:
    """The orders of which these events make all known that they need to earn: each once, whatever comes later."""
    folded: Folded = await fold_orders(session, events)
    whole = [
        changed.after
        for changed in folded.orders
        if domain.is_whole(changed.after) and not domain.is_whole(changed.before)
    ]
    if not whole:
        return []
    causes = _causes(events)
    deeds = [domain.deed_of_order(order, causes[order.key]) for order in whole]
    await identity.add_subjects(session, (deed.holder for deed in deeds))
    return deeds


def _causes(events: Iterable[AnyEvent]) -> dict[OrderKey, AnyEvent]:
    """The event that tells most of each order: a payment if there is one, else the last that names it."""
    causes: dict[OrderKey, AnyEvent] = {}
    for event in events:
        if isinstance(event, OrderEvent) and event.data.order_id is not None:
            key = (event.account, event.platform or "", event.data.order_id)
            if event.type == "order.paid" or key not in causes or causes[key].type != "order.paid":
                causes[key] = event
    return causes


async def _apply_caps(
    session: AsyncSession, awards: list[Award], locked: holders.Locked, account_of: AccountOf
) -> None:
    user_of = {holder: row.user_id for holder, row in locked.rows.items()}
    caps = domain.Caps(awards, user_of, lambda account: account_of(account).zone)
    caps.apply(await ledger.read_used(session, caps.windows, locked))


async def _add_to_balances(session: AsyncSession, booked: list[Award], locked: holders.Locked) -> notices.Balances:
    """The balances after `booked`, of every wallet of the users who got any of it."""
    changes: defaultdict[tuple[str, object], list[int]] = defaultdict(lambda: [0, 0, 0])
    for award_ in booked:
        sums = changes[award_.deed.holder[0], locked.ref(award_.deed.holder)]
        sums[0] += award_.points
        sums[1] += award_.growth
        sums[2] += 1
    balances = await ledger.add_to_balances(session, {key: Balance(*sums) for key, sums in changes.items()})  # type: ignore[misc]
    others = [
        (account, locked.ref(holder))
        for account, user_id in {locked.user(award_.deed.holder) for award_ in booked}
        for holder in locked.of_user[account, user_id]
        if (account, locked.ref(holder)) not in balances
    ]
    return {**balances, **await ledger.read_balances(session, others)}


def day_by(account_of: AccountOf) -> Callable[[AnyEvent], date]:
    """What tells the day of a sign-in by its account's configuration."""

    def day_of(event: AnyEvent) -> date:
        account = account_of(event.account)
        offset = event.data.utc_offset_minutes if event.type == "sign_in" else None
        return sign_in_day(event.time, offset, account.zone, account.sign_in_day)

    return day_of


async def fold_facts(session: AsyncSession, events: list[AnyEvent], account_of: AccountOf) -> None:
    """The sign-in days and orders in `events` alone, as a rebuild needs them: nothing is booked."""
    deeds = [domain.deed_of(event) for event in events if event.type == "sign_in" and domain.is_deed(event)]
    rules = {deed.holder[0]: Rules(()) for deed in deeds}
    await days.add_days(session, domain.sign_in(deeds, rules, {}, day_by(account_of)).days)
    await fold_orders(session, events)


def _count(booked: list[Award], sign_ins: int, new_days: int) -> None:
    for award_ in booked:
        POINTS_AWARDED.labels(SERVICE, award_.rule.key).inc(award_.points)
        if award_.capped_by:
            POINTS_CAPPED.labels(SERVICE, award_.rule.key).inc(award_.wanted - award_.points)
    SIGN_INS.labels(SERVICE, "new_day").inc(new_days)
    SIGN_INS.labels(SERVICE, "same_day").inc(sign_ins - new_days)
