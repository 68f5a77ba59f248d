"""Fans as they stand, and what happened to them."""

from collections import defaultdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, WithJsonSchema

from libs.common.config import Account
from libs.common.days import longest_run
from libs.common.db import AsyncSession
from libs.common.events import EVENT_TYPES
from libs.common.identity import resolve
from libs.common.orders import read_paid
from libs.common.web import Cursor, Limit, Page, decode_cursor, invalid, make_page, problems
from libs.common.web.database import ReadSessionDep
from services.profile.api.parameters import AsOf, ReaderDep, Ref
from services.profile.domain import activity as domain
from services.profile.domain.value import appraise
from services.profile.schemas import users as schemas
from services.profile.schemas import value as value_schemas
from services.profile.store import activity as store

router = APIRouter(tags=["users"])


def _check_type(name: str) -> str:
    if name not in EVENT_TYPES:
        raise ValueError("no such event type")
    return name


TypeName = Annotated[str, AfterValidator(_check_type), WithJsonSchema({"type": "string", "enum": sorted(EVENT_TYPES)})]


@router.get("/v1/users", summary="All fans, page by page")
async def list_users(
    caller: ReaderDep, session: ReadSessionDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[schemas.User]:
    """Every fan with his full state, ordered by user id: the way an internal app keeps a copy."""
    after = decode_cursor(cursor, (str,))[0] if cursor else ""
    users = await store.page_users(session, caller.account.name, after, limit + 1)
    return make_page(
        await _read_users(session, caller.account, users), limit, lambda user: user, lambda user: (user.user_id,)
    )


@router.get("/v1/users/{ref}", summary="One fan", responses=problems(404))
async def get_user(ref: Ref, caller: ReaderDep, session: ReadSessionDep) -> schemas.User:
    """The full state of one fan."""
    user = await resolve(session, caller.account.name, ref)
    return (await _read_users(session, caller.account, [(user.user_id, list(user.subjects))]))[0]


@router.get("/v1/users/{ref}/timeline", summary="What happened to one fan", responses=problems(404))
async def list_timeline(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    type: Annotated[list[TypeName] | None, Query(description="only these types", examples=[["follow"]])] = None,  # noqa: A002
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.TimelineEntry]:
    """All events of all his subjects, newest first, including what other services concluded about him."""
    before = None
    if cursor:
        time, digest = decode_cursor(cursor, (datetime, str))
        try:
            before = (time, bytes.fromhex(digest))
        except ValueError:
            raise invalid("is not a cursor of this list", parameter="query/cursor") from None
    user = await resolve(session, caller.account.name, ref)
    rows = await store.page_timeline(session, user.account, list(user.subjects), type, before, limit + 1)
    return make_page(
        rows,
        limit,
        lambda row: schemas.TimelineEntry.model_validate(row, from_attributes=True),
        lambda row: (row.time, bytes(row.digest).hex()),
    )


@router.get("/v1/users/{ref}/value", summary="What one fan has bought", responses=problems(404))
async def get_value(
    ref: Ref, caller: ReaderDep, session: ReadSessionDep, as_of: AsOf = None
) -> value_schemas.ValueAsOf:
    """Orders paid and refunds made by `as_of`, with amounts and buyers as known today."""
    instant = as_of or datetime.now(UTC)
    user = await resolve(session, caller.account.name, ref)
    bought = await read_paid(session, [(user.account, subject) for subject in user.subjects], instant)
    found = appraise(
        [order for purchases in bought.values() for order in purchases.orders],
        [refund for purchases in bought.values() for refund in purchases.refunds],
        caller.account.zone,
        instant,
    )
    return value_schemas.ValueAsOf(user_id=user.user_id, as_of=instant, **value_schemas.Value.of(found).model_dump())


async def _read_users(
    session: AsyncSession, account: Account, users: list[tuple[str, list[str]]]
) -> list[schemas.User]:
    subjects = [subject for _, group in users for subject in group]
    seen = await store.read_seen(session, account.name, subjects)
    bought = await read_paid(session, [(account.name, subject) for subject in subjects])
    counts = defaultdict(list)
    for subject, day, event_type, count in await store.read_counts(session, account.name, subjects):
        counts[subject].append((day, event_type, count))
    states = []
    for user_id, group in users:
        portrait = domain.portray(
            [seen[subject] for subject in group if subject in seen],
            [row for subject in group for row in counts[subject]],
        )
        purchases = [bought[account.name, subject] for subject in group if (account.name, subject) in bought]
        value = appraise(
            [order for one in purchases for order in one.orders],
            [refund for one in purchases for refund in one.refunds],
            account.zone,
        )
        days = portrait.active_days
        states.append(
            schemas.User(
                user_id=user_id,
                subjects=group,
                first_seen=portrait.first_seen,
                last_seen=portrait.last_seen,
                first_follow=portrait.first_follow,
                following=portrait.following,
                counts=portrait.counts,
                active_days=len(days),
                longest_run=longest_run(days),
                first_active_day=days[0] if days else None,
                last_active_day=days[-1] if days else None,
                value=value_schemas.Value.of(value),
            )
        )
    return states
