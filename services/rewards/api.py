"""rewards over REST."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query

from libs.common.auth import Caller, require
from libs.common.days import local_day
from libs.common.events import EventTime
from libs.common.identity import UnknownUserError, resolve
from libs.common.telemetry import current_traceparent
from libs.common.web import Cursor, Limit, Page, decode_cursor, forbidden, invalid, make_page, not_found, problems
from libs.common.web.database import ReadSessionDep, SessionDep
from libs.common.web.idempotency import IdempotencyDep
from services.rewards import domain, schemas, store, usecases

router = APIRouter()

ReaderDep = Annotated[Caller, Depends(require("rewards:read"))]
WriterDep = Annotated[Caller, Depends(require("rewards:write"))]
Ref = Annotated[str, Path(max_length=200, description="a user id or any subject", examples=["douyin:u42"])]
SigningRef = Annotated[
    str,
    Path(
        max_length=200,
        pattern=r"^(usr_[a-z0-9]+|[a-z0-9._-]{1,40}:[^/\x00-\x1f\x7f-\x9f]+)$",
        description="a user id, or a subject `<id space>:<id>`, which may be new",
        examples=["douyin:u42"],
    ),
]


@router.post("/v1/users/{ref}/sign-ins", summary="Sign in for today", tags=["sign-ins"], responses=problems(404, 409))
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
    if not domain.SIGN_IN.rewards(caller.trust):
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


@router.get("/v1/users/{ref}/streak", summary="Sign-in streak", tags=["sign-ins"], responses=problems(404))
async def get_streak(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    as_of: Annotated[EventTime | None, Query(description="sign-ins up to this instant; now if absent")] = None,
) -> schemas.Streak:
    """The streak alive, the longest one, and a calendar. Today is the day of `as_of` in the account's zone."""
    user = await resolve(session, caller.account.name, ref)
    today = local_day(as_of or datetime.now(UTC), caller.account.zone)
    by_subject = await store.read_days(session, user.account, user.subjects, as_of)
    days = set().union(*by_subject.values())
    streak = domain.streak_of(days, today)
    own = domain.streak_of(by_subject[usecases.subject_of(user, ref)], today)
    return schemas.Streak(
        user_id=user.user_id,
        current=streak.current,
        longest=streak.longest,
        days=streak.days,
        last_day=streak.last_day,
        next_day_points=domain.SIGN_IN_LADDER.next_step(own.current),
        calendar=[schemas.CalendarDay(day=day, signed_in=signed) for day, signed in domain.calendar(days, today)],
    )


@router.get("/v1/users/{ref}/points", summary="Points of a user", tags=["points"], responses=problems(404))
async def get_points(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    known_at: Annotated[EventTime | None, Query(description="what had been booked by then; now if absent")] = None,
) -> schemas.Points:
    """The balance and what it is made of, by rule."""
    user = await resolve(session, caller.account.name, ref)
    totals = await store.read_totals(session, user.account, user.subjects, known_at)
    return schemas.Points(
        user_id=user.user_id,
        balance=sum(points for _, points, _ in totals),
        revision=sum(entries for _, _, entries in totals),
        by_rule={rule: points for rule, points, _ in totals},
    )


@router.get("/v1/users/{ref}/ledger", summary="Why a user has these points", tags=["points"], responses=problems(404))
async def list_ledger(
    ref: Ref, caller: ReaderDep, session: ReadSessionDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[schemas.Entry]:
    """Every entry with its rule, the rule's version and the event behind it; newest first."""
    before = None
    if cursor:
        created_at, event_time, entry_id = decode_cursor(cursor, (datetime, datetime, str))
        try:
            before = (created_at, event_time, UUID(entry_id))
        except ValueError:
            raise invalid("is not a cursor of this list", parameter="query/cursor") from None
    user = await resolve(session, caller.account.name, ref)
    rows = await store.page_ledger(session, user.account, user.subjects, before, limit + 1)
    return make_page(
        rows,
        limit,
        lambda row: schemas.Entry(
            entry_id=row.entry_id,
            points=row.points,
            rule=row.rule,
            rule_version=row.rule_version,
            subject=row.subject,
            created_at=row.created_at,
            event=schemas.Cause(source=row.event_source, id=row.event_id, type=row.event_type, time=row.event_time),
        ),
        lambda row: (row.created_at, row.event_time, str(row.entry_id)),
    )


@router.get("/v1/earn-rules", summary="What earns points", tags=["points"], response_model_exclude_none=True)
async def list_earn_rules(_caller: ReaderDep) -> schemas.EarnRules:
    """All rules in their present version. Entries keep the version that gave them."""
    return schemas.EarnRules(
        items=[
            schemas.EarnRule(
                key=rule.key,
                version=rule.version,
                event_type=rule.event_type,
                points=None if rule.ladder else rule.points,
                ladder=list(rule.ladder.steps) if rule.ladder else None,
                client=rule.client,
            )
            for rule in domain.EARN_RULES
        ]
    )
