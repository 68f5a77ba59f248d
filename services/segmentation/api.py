"""segmentation over REST."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from libs.common.auth import Caller, require
from libs.common.days import local_day
from libs.common.events import EventTime
from libs.common.identity import resolve
from libs.common.web import Cursor, Limit, Page, decode_cursor, make_page, not_found, problems
from libs.common.web.database import ReadSessionDep
from services.segmentation import domain, schemas, store
from services.segmentation.domain import DEFAULT, State

router = APIRouter()

CallerDep = Annotated[Caller, Depends(require("segmentation:read"))]
Ref = Annotated[str, Path(max_length=200, description="a user id or any subject", examples=["douyin:u42"])]
AsOf = Annotated[
    EventTime | None,
    Query(
        description="what was true at this instant, with all that is known today; now when absent",
        examples=["2026-06-05T10:00:00+08:00"],
    ),
]
KnownAt = Annotated[
    EventTime | None,
    Query(description="what had been decided by this instant; now when absent", examples=["2026-06-05T10:00:00+08:00"]),
]

STATE_OF: dict[str, State] = {key: state for state in domain.STATES if (key := domain.segment_key(state))}
WORDS: dict[State, tuple[str, str]] = {
    "new": ("新用户", f"first active less than {DEFAULT.quiet} days ago"),
    "active": ("活跃", f"active within {DEFAULT.quiet} days, neither new nor returned"),
    "returned": ("回流", f"came back after having been dormant, less than {DEFAULT.quiet} days ago"),
    "dormant": ("沉睡", f"idle for {DEFAULT.quiet + 1} to {DEFAULT.lost} days"),
    "lost": ("流失", f"idle for more than {DEFAULT.lost} days"),
}


@router.get(
    "/v1/users/{ref}/lifecycle",
    summary="Where a user is in his lifecycle, and why",
    tags=["users"],
    responses=problems(404),
)
async def get_lifecycle(ref: Ref, caller: CallerDep, session: ReadSessionDep, as_of: AsOf = None) -> schemas.Lifecycle:
    """Computed from his active days at any instant, whatever has been announced."""
    as_of = as_of or datetime.now(UTC)
    zone = caller.account.zone
    today = local_day(as_of, zone)
    user = await resolve(session, caller.account.name, ref)
    days = await store.read_user_days(session, user.account, user.subjects, today)
    activity = domain.sum_up(days)
    placement = domain.place(activity, today)
    return schemas.Lifecycle(
        user_id=user.user_id,
        as_of=as_of,
        day=today,
        zone=zone.key,
        state=placement.state,
        since=domain.midnight(placement.since_day, zone) if placement.since_day else None,
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
    tags=["users"],
    responses=problems(404),
)
async def list_memberships(
    ref: Ref,
    caller: CallerDep,
    session: ReadSessionDep,
    known_at: KnownAt = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> schemas.Memberships:
    """What was decided and announced: the notices `segment.entered` and `segment.left` tell the same."""
    known_at = known_at or datetime.now(UTC)
    before = decode_cursor(cursor, (datetime, str, int)) if cursor else None
    user = await resolve(session, caller.account.name, ref)
    current = await store.read_memberships(session, user.account, user.user_id, known_at)
    changes = await store.page_changes(session, user.account, user.user_id, known_at, before, limit + 1)
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


@router.get("/v1/segments", summary="All segments and their sizes", tags=["segments"])
async def list_segments(caller: CallerDep, session: ReadSessionDep, as_of: AsOf = None) -> schemas.Segments:
    """Sizes are counted from the users' active days at `as_of`."""
    as_of = as_of or datetime.now(UTC)
    today = local_day(as_of, caller.account.zone)
    sizes = await store.count_members(session, caller.account.name, today, DEFAULT)
    return schemas.Segments(
        as_of=as_of,
        day=today,
        items=[
            schemas.Segment(
                key=key,
                layering=domain.LAYERING,
                name=WORDS[state][0],
                description=WORDS[state][1],
                size=sizes.get(state, 0),
            )
            for key, state in STATE_OF.items()
        ],
    )


@router.get("/v1/segments/{key}/members", summary="Who is in a segment", tags=["segments"], responses=problems(404))
async def list_members(
    key: Annotated[str, Path(max_length=200, examples=["lifecycle.returned"])],
    caller: CallerDep,
    session: ReadSessionDep,
    as_of: AsOf = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.Member]:
    """Ordered by user id. Give `as_of` to have all pages of one moment."""
    state = STATE_OF.get(key)
    if state is None:
        raise not_found(f"There is no segment {key!r}.", "unknown_segment")
    zone = caller.account.zone
    today = local_day(as_of or datetime.now(UTC), zone)
    after = decode_cursor(cursor, (str,))[0] if cursor else ""
    rows = await store.page_members(session, caller.account.name, state, today, DEFAULT, after, limit + 1)

    def member(row: tuple[str, domain.Activity]) -> schemas.Member:
        user_id, activity = row
        placement = domain.place(activity, today)
        assert placement.since_day is not None
        return schemas.Member(
            user_id=user_id,
            state=placement.state,
            since=domain.midnight(placement.since_day, zone),
            idle_days=(today - activity.last).days,
            last_active_day=activity.last,
        )

    return make_page(rows, limit, member, lambda row: (row[0],))
