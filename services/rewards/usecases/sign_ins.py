"""Signing in over REST."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from libs.common import inbox, outbox
from libs.common.config import Account
from libs.common.days import sign_in_day, streak_of
from libs.common.db import AsyncSession
from libs.common.events import new_event
from libs.common.identity import USER_PREFIX, UnknownUserError, User, lock_groups, resolve, user_id_of
from services.rewards.store.days import read_days
from services.rewards.store.statement import read_balance
from services.rewards.usecases.earning import Booked, award, keep_data

SIGN_IN_SOURCE = "/rewards/sign-ins"


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
    await lock_groups(session, [account.name])
    user = await _resolve_or_begin(session, account.name, ref)
    subject = subject_of(user, ref)
    day = sign_in_day(now, offset, account.zone, account.sign_in_day)
    booked = Booked()
    days = await read_days(session, account.name, user.subjects)
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
        days = await read_days(session, account.name, user.subjects)
    streak = streak_of(set().union(*days.values()), day)
    return SignedIn(
        user_id=user.user_id,
        day=day,
        points=sum(entry.points for entry in booked.awards),
        streak=streak.current,
        longest=streak.longest,
        balance=await read_balance(session, account.name, user.subjects),
        already_signed_in=not booked.new_days,
    )


async def _resolve_or_begin(session: AsyncSession, account: str, ref: str) -> User:
    try:
        return await resolve(session, account, ref)
    except UnknownUserError:
        if ref.startswith(USER_PREFIX):
            raise
        return User(account, user_id_of(account, ref), (ref,))


def subject_of(user: User, ref: str) -> str:
    """Which of the user's subjects something under `ref` belongs to: the one named, else the one that the user is named
    after."""
    if ref in user.subjects:
        return ref
    named_after = (subject for subject in user.subjects if user_id_of(user.account, subject) == user.user_id)
    return next(named_after, user.subjects[0])
