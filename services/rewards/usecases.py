"""rewards' business actions; shared by HTTP and Kafka."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from prometheus_client import Counter

from libs.common import inbox, outbox
from libs.common.config import Account
from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent, new_event
from libs.common.identity import USER_PREFIX, UnknownUserError, User, resolve, user_id_of
from services.rewards import domain, store
from services.rewards.domain import Award, Holder

POINTS_AWARDED = Counter(
    "superfan_points_awarded_total",
    "Points booked and committed",
    ["service", "rule"],
)
SIGN_INS = Counter(
    "superfan_sign_ins_total", "Sign-in events by outcome: new_day earns, same_day does not", ["service", "outcome"]
)

SERVICE = "rewards"
SOURCE = f"/{SERVICE}"
SIGN_IN_SOURCE = "/rewards/sign-ins"


def keep_data(event_type: str) -> bool:
    """Only the content of sign-ins is read again: its offset decides the day."""
    return event_type == domain.SIGN_IN.event_type


async def award(
    session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: Callable[[str], Account]
) -> list[Award]:
    """Apply the rules to new events and tell the others; returns what was booked.

    The number of statements is constant. Locks come first, so that what is read after them stays true until the end:
    sign-ins of one person may arrive by HTTP and from Kafka at once.
    """
    earning = domain.earning(events)
    if not earning:
        return []
    holders = await store.lock_holders(session, map(domain.holder_of, earning))
    sign_ins = [event for event in earning if event.type == domain.SIGN_IN.event_type]
    known = await store.read_runs(session, {domain.holder_of(event) for event in sign_ins})

    earned = domain.fold(earning, known, day_by(account_of))
    await store.add_days(session, earned.days)
    booked: list[Award] = []
    if earned.awards:
        booked = await store.add_entries(session, earned.awards, holders, now)
    if booked:
        balances = await store.add_to_balances(session, booked, holders)
        await outbox.add(session, _notices(booked, holders, balances, now))
    after_commit(session, lambda: _count(booked, len(sign_ins)))
    return booked


def day_by(account_of: Callable[[str], Account]) -> Callable[[AnyEvent], date]:
    """What tells the day of a sign-in by its account's configuration."""

    def day_of(event: AnyEvent) -> date:
        account = account_of(event.account)
        offset = event.data.utc_offset_minutes if event.type == "sign_in" else None
        return domain.sign_in_day(event.time, offset, account.zone, account.sign_in_day)

    return day_of


def _notices(
    awards: list[Award],
    holders: dict[Holder, store.HolderRow],
    balances: dict[Holder, store.Balance],
    now: datetime,
) -> list[AnyEvent]:
    """One for each entry. What counts up is the balance of one subject, so the subject's own id is the entity."""
    after = dict(balances)
    notices = []
    for award_ in reversed(awards):  # backwards from the balance that stands now
        event, holder = award_.event, award_.holder
        balance = after[holder]
        notice = new_event(
            "points.awarded",
            account=event.account,
            source=SOURCE,
            id=str(award_.entry_id),
            subject=event.subject,
            platform=event.platform,
            time=now,
            received=now,
            traceparent=event.traceparent,
            data={
                "entity": user_id_of(*holder),
                "revision": balance.revision,
                "since": event.time,
                "user_id": holders[holder].user_id,
                "points": award_.points,
                "balance": balance.points,
                "rule": award_.rule.key,
                "rule_version": award_.rule.version,
                "entry_id": str(award_.entry_id),
                "caused_by": award_.digest.hex(),
            },
        )
        notice.backfill = event.backfill
        notices.append(notice)
        after[holder] = store.Balance(balance.points - award_.points, balance.revision - 1)
    return notices[::-1]


def _count(booked: list[Award], sign_ins: int) -> None:
    for award_ in booked:
        POINTS_AWARDED.labels(SERVICE, award_.rule.key).inc(award_.points)
    new_days = sum(award_.rule is domain.SIGN_IN for award_ in booked)
    SIGN_INS.labels(SERVICE, "new_day").inc(new_days)
    SIGN_INS.labels(SERVICE, "same_day").inc(sign_ins - new_days)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The answer to a sign-in: what this one earned, and where the user stands."""

    user_id: str
    day: date
    points: int
    streak: int
    longest: int
    balance: int
    already_signed_in: bool


async def sign_in(
    session: AsyncSession,
    account: Account,
    ref: str,
    offset: int | None,
    now: datetime,
    *,
    trust: Literal["server", "client"],
    traceparent: str | None,
) -> SignedIn:
    """Sign a user in for today, once. Recorded here and published as the event that it is, in one transaction, so that
    it is known when it comes back from Kafka.

    `ref` may be a subject that is new, if it is a valid one. Raises UnknownUserError for a user id that is not known.
    """
    user = await _resolve_or_begin(session, account.name, ref)
    subject = subject_of(user, ref)
    day = domain.sign_in_day(now, offset, account.zone, account.sign_in_day)
    booked: list[Award] = []
    days = await store.read_days(session, account.name, user.subjects)
    if not any(day in signed for signed in days.values()):
        event = new_event(
            "sign_in",
            account=account.name,
            source=SIGN_IN_SOURCE,
            id=f"{user_id_of(account.name, subject)}:{day}",
            subject=subject,
            time=now,
            received=now,
            data={} if offset is None else {"utc_offset_minutes": offset},
            trust=trust,
            traceparent=traceparent,
        )
        new = (await inbox.insert_new(session, [event], keep_data)).new
        await outbox.add(session, new)
        booked = await award(session, new, now, lambda _: account)
        days = await store.read_days(session, account.name, user.subjects)
    streak = domain.streak_of(set().union(*days.values()), day)
    return SignedIn(
        user_id=user.user_id,
        day=day,
        points=sum(entry.points for entry in booked),
        streak=streak.current,
        longest=streak.longest,
        balance=await store.read_balance(session, account.name, user.subjects),
        already_signed_in=not booked,
    )


async def _resolve_or_begin(session: AsyncSession, account: str, ref: str) -> User:
    try:
        return await resolve(session, account, ref)
    except UnknownUserError:
        if ref.startswith(USER_PREFIX):
            raise
        return User(account, user_id_of(account, ref), (ref,))


def subject_of(user: User, ref: str) -> str:
    """Which of the user's subjects a sign-in under `ref` belongs to: the one named, else the one that the user is named
    after."""
    if ref in user.subjects:
        return ref
    named_after = (subject for subject in user.subjects if user_id_of(user.account, subject) == user.user_id)
    return next(named_after, user.subjects[0])
