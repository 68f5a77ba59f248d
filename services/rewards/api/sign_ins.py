"""Signing in, and streaks."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query

from libs.common.days import local_day, streak_of
from libs.common.events import EventTime
from libs.common.identity import UnknownUserError, resolve
from libs.common.telemetry import current_traceparent
from libs.common.web import forbidden, invalid, not_found, problems
from libs.common.web.database import ReadSessionDep, SessionDep
from libs.common.web.idempotency import IdempotencyDep
from services.rewards.api import ReaderDep, Ref, WriterDep
from services.rewards.domain.days import calendar
from services.rewards.domain.rules import StreakRule
from services.rewards.schemas import sign_ins as schemas
from services.rewards.store.days import read_days
from services.rewards.store.definitions import read_rules
from services.rewards.usecases import sign_ins as usecases

router = APIRouter(tags=["sign-ins"])

SigningRef = Annotated[
    str,
    Path(
        max_length=200,
        pattern=r"^(usr_[a-z0-9]+|[a-z0-9._-]{1,40}:[^/\x00-\x1f\x7f-\x9f]+)$",
        description="a user id, or a subject `<id space>:<id>`, which may be new",
        examples=["douyin:u42"],
    ),
]


@router.post("/v1/users/{ref}/sign-ins", summary="Sign in for today", responses=problems(404, 409))
async def sign_in(
    ref: SigningRef,
    caller: WriterDep,
    session: SessionDep,
    idempotency: IdempotencyDep,
    body: schemas.SignIn | None = None,
) -> schemas.SignedIn:
    """Once per user and day, whether it comes this way or as a `sign_in` event. A subject that is new begins here.

    The day is that of the person's own clock when `utc_offset_minutes` is given and the account allows it.
    """
    if caller.trust == "client":
        raise forbidden("Sign-ins earn points; a public key (trust = client) cannot vouch for them.", "client_trust")
    if ref.startswith("content:"):
        raise invalid("names a piece of content; only people sign in", parameter="path/ref")

    async def act() -> schemas.SignedIn:
        try:
            signed_in = await usecases.sign_in(
                session,
                caller.account,
                ref,
                body.utc_offset_minutes if body else None,
                datetime.now(UTC),
                trust=caller.trust,
                traceparent=current_traceparent(),
            )
        except UnknownUserError:
            raise not_found(f"No event has named the user {ref}.", "unknown_user") from None
        return schemas.SignedIn.model_validate(signed_in)

    return await idempotency.run(session, caller, body, act)


@router.get("/v1/users/{ref}/streak", summary="Sign-in streak", responses=problems(404))
async def get_streak(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    as_of: Annotated[EventTime | None, Query(description="sign-ins up to this instant; now if absent")] = None,
) -> schemas.Streak:
    """The streak alive, the longest one, and a calendar. Today is the day of `as_of` in the account's zone."""
    user = await resolve(session, caller.account.name, ref)
    now = as_of or datetime.now(UTC)
    today = local_day(now, caller.account.zone)
    by_subject = await read_days(session, user.account, user.subjects, as_of)
    days = set().union(*by_subject.values())
    streak = streak_of(days, today)
    own = streak_of(by_subject[usecases.subject_of(user, ref)], today)
    rules = (await read_rules(session, [user.account]))[user.account].judge("sign_in", now)
    return schemas.Streak(
        user_id=user.user_id,
        current=streak.current,
        longest=streak.longest,
        days=streak.days,
        last_day=streak.last_day,
        next_day_points=sum(
            version.rule.ladder.next_step(own.current) for version in rules if isinstance(version.rule, StreakRule)
        ),
        calendar=[schemas.CalendarDay(day=day, signed_in=signed) for day, signed in calendar(days, today)],
    )
