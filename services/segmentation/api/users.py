"""One user over REST: lifecycle, ladder, memberships."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from libs.common.days import local_day
from libs.common.identity import resolve
from libs.common.web import Cursor, Limit, decode_cursor, make_page, problems
from libs.common.web.database import ReadSessionDep
from services.segmentation import schemas
from services.segmentation.api.parameters import AsOf, KnownAt, ReaderDep, Ref
from services.segmentation.domain.ladder import Facts, stand
from services.segmentation.domain.lifecycle import DEFAULT, place, sum_up
from services.segmentation.domain.segments import Layering, midnight
from services.segmentation.store.ladder import read_facts
from services.segmentation.store.lifecycle import read_user_days
from services.segmentation.store.moves import page_changes, read_memberships

router = APIRouter(tags=["users"])

NEWEST_STEPS = 20


@router.get(
    "/v1/users/{ref}/lifecycle",
    summary="Where a user is in his lifecycle, and why",
    responses=problems(404),
)
async def get_lifecycle(ref: Ref, caller: ReaderDep, session: ReadSessionDep, as_of: AsOf = None) -> schemas.Lifecycle:
    """Computed from his active days at any instant, whatever has been announced."""
    as_of = as_of or datetime.now(UTC)
    zone = caller.account.zone
    today = local_day(as_of, zone)
    user = await resolve(session, caller.account.name, ref)
    days = await read_user_days(session, user.account, user.subjects, today)
    activity = sum_up(days)
    placement = place(activity, today)
    return schemas.Lifecycle(
        user_id=user.user_id,
        as_of=as_of,
        day=today,
        zone=zone.key,
        state=placement.state,
        since=midnight(placement.since_day, zone) if placement.since_day else None,
        flips_on=placement.flips_on,
        idle_days=(today - activity.last).days if activity else None,
        active_days=len(days),
        first_active_day=activity.first if activity else None,
        last_active_day=activity.last if activity else None,
        returned_day=activity.returned if activity else None,
        thresholds=schemas.Thresholds(quiet_days=DEFAULT.quiet, lost_days=DEFAULT.lost),
    )


@router.get(
    "/v1/users/{ref}/memberships",
    summary="The segments of a user, and how he came into them",
    responses=problems(404),
)
async def list_memberships(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    known_at: KnownAt = None,
    layering: Annotated[Layering | None, Query(description="only this one", examples=["lifecycle"])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> schemas.Memberships:
    """What was decided and announced: the notices `segment.entered` and `segment.left` tell the same."""
    known_at = known_at or datetime.now(UTC)
    before = decode_cursor(cursor, (datetime, str, int)) if cursor else None
    user = await resolve(session, caller.account.name, ref)
    current = await read_memberships(session, user.account, user.user_id, known_at, layering)
    changes = await page_changes(session, user.account, user.user_id, known_at, layering, before, limit + 1)
    page = make_page(
        changes,
        limit,
        schemas.MembershipChange.model_validate,
        lambda change: (change.decided_at, change.layering, change.revision),
    )
    return schemas.Memberships(
        user_id=user.user_id,
        known_at=known_at,
        current=[
            schemas.Membership(
                segment=change.segment_to,
                layering=change.layering,
                since=change.since,
                revision=change.revision,
                decided_at=change.decided_at,
            )
            for change in current
            if change.segment_to is not None and change.since is not None
        ],
        items=page.items,
        next_cursor=page.next_cursor,
        has_more=page.has_more,
    )


@router.get("/v1/users/{ref}/ladder", summary="How close a user is, and why", responses=problems(404))
async def get_ladder(ref: Ref, caller: ReaderDep, session: ReadSessionDep, as_of: AsOf = None) -> schemas.Ladder:
    """Computed from what he has done, followed and paid at any instant, whatever has been announced.

    Each rung has a condition of its own, and the highest one that holds counts; so whoever unfollows or gets all of his
    money back falls to the next one that still holds. Nobody is a super user yet.
    """
    as_of = as_of or datetime.now(UTC)
    account = caller.account
    user = await resolve(session, account.name, ref)
    key = (account.name, user.user_id)
    facts = (await read_facts(session, [key], lambda _: account.zone)).get(key, Facts())
    standing = stand(facts, as_of)
    seen, interacted = (
        time if time is not None and time <= as_of else None for time in (facts.first_seen, facts.first_interaction)
    )
    return schemas.Ladder(
        user_id=user.user_id,
        as_of=as_of,
        rung=standing.rung,
        since=standing.since,
        first_active_day=local_day(seen, account.zone) if seen else None,
        following=standing.following,
        first_interaction=interacted,
        net_paid=[
            schemas.NetPaid(currency=currency, net_minor=amount)
            for currency, amount in sorted(standing.net_minor.items())
        ],
        steps=[
            schemas.LadderStep(rung=step.rung, since=step.since)
            for step in reversed(standing.steps[-NEWEST_STEPS:])
            if step.since is not None
        ],
    )
