"""Segments over REST: sizes, members, flows."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BeforeValidator

from libs.common.config import Account
from libs.common.days import DAY, local_day
from libs.common.db import AsyncSession
from libs.common.web import Cursor, Limit, Page, decode_cursor, make_page, not_found, problems
from libs.common.web.database import ReadSessionDep
from services.segmentation import schemas
from services.segmentation.api.parameters import AsOf, KnownAt, ReaderDep
from services.segmentation.domain import lifecycle
from services.segmentation.domain.ladder import stand
from services.segmentation.domain.lifecycle import DEFAULT
from services.segmentation.domain.segments import SEGMENTS, STATES, Layering, midnight, segment_key
from services.segmentation.store import ladder as ladder_store
from services.segmentation.store import lifecycle as lifecycle_store
from services.segmentation.store import moves

router = APIRouter(tags=["segments"])

MOST_DAYS = 366
EARLIEST = date(1970, 1, 1)
WORDS: dict[str, tuple[str, str]] = {
    "lifecycle.new": ("新用户", f"first active less than {DEFAULT.quiet} days ago"),
    "lifecycle.active": ("活跃", f"active within {DEFAULT.quiet} days, neither new nor returned"),
    "lifecycle.returned": ("回流", f"came back after having been dormant, less than {DEFAULT.quiet} days ago"),
    "lifecycle.dormant": ("沉睡", f"idle for {DEFAULT.quiet + 1} to {DEFAULT.lost} days"),
    "lifecycle.lost": ("流失", f"idle for more than {DEFAULT.lost} days"),
    "ladder.visitor": ("访客", "seen, and no more"),
    "ladder.fan": ("粉丝", "follows"),
    "ladder.user": ("用户", "has done more than view"),
    "ladder.customer": ("客户", "has paid more than was refunded"),
    "ladder.super_user": ("超级用户", "nobody yet: what makes a super user is not defined"),
}
LayeringName = Annotated[Layering, Path(description="a way to divide all users", examples=["lifecycle"])]


def _is_day(value: object) -> object:
    """Only 2026-06-01: numbers would be taken for seconds."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("should be a day such as 2026-06-01")
    return value


Day = Annotated[date, BeforeValidator(_is_day)]
From = Annotated[
    Day | None,
    Query(
        alias="from",
        description=f"first local day; 29 days before `to` when absent, {MOST_DAYS - 1} days before it at most",
        examples=["2026-06-01"],
    ),
]
To = Annotated[Day | None, Query(description="last local day; today when absent or later", examples=["2026-06-30"])]


@router.get("/v1/segments", summary="All segments and their sizes")
async def list_segments(caller: ReaderDep, session: ReadSessionDep, as_of: AsOf = None) -> schemas.Segments:
    """Sizes are counted from what the users had done, followed and paid at `as_of`."""
    as_of = as_of or datetime.now(UTC)
    today = local_day(as_of, caller.account.zone)
    sizes: dict[Layering, dict[Any, int]] = {
        "lifecycle": await lifecycle_store.count_members(session, caller.account.name, today, DEFAULT),
        "ladder": await ladder_store.count_rungs(session, caller.account.name, as_of, today),
    }
    return schemas.Segments(
        as_of=as_of,
        day=today,
        items=[
            schemas.Segment(
                key=key,
                layering=layering,
                name=WORDS[key][0],
                description=WORDS[key][1],
                size=sizes[layering].get(state, 0),
            )
            for key, (layering, state) in SEGMENTS.items()
        ],
    )


@router.get("/v1/segments/{key}/members", summary="Who is in a segment", responses=problems(404))
async def list_members(
    key: Annotated[str, Path(max_length=200, examples=["lifecycle.returned"])],
    caller: ReaderDep,
    session: ReadSessionDep,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.Member]:
    """Ordered by user id. Give `as_of` to have all pages of one moment, or `known_at` for who had been announced to be
    in it by then. They ask different questions: with `known_at`, `as_of` is left aside."""
    if key not in SEGMENTS:
        raise not_found(f"There is no segment {key!r}.", "unknown_segment")
    layering, state = SEGMENTS[key]
    after = decode_cursor(cursor, (str,))[0] if cursor else ""
    account = caller.account
    if known_at is not None:
        changes = await moves.page_known_members(session, account.name, key, known_at, after, limit + 1)
        return make_page(
            changes,
            limit,
            lambda change: schemas.Member(
                user_id=change.user_id,
                state=state,
                since=change.since or change.decided_at,
                revision=change.revision,
                decided_at=change.decided_at,
            ),
            lambda change: (change.user_id,),
        )
    as_of = as_of or datetime.now(UTC)
    today = local_day(as_of, account.zone)
    if layering == "ladder":
        users = await ladder_store.page_rung(session, account.name, state, as_of, today, after, limit + 1)
        members = await _on_the_ladder(session, account, users, as_of)
    else:
        rows = await lifecycle_store.page_members(session, account.name, state, today, DEFAULT, after, limit + 1)  # type: ignore[arg-type]
        members = [_in_the_lifecycle(account, user_id, activity, today) for user_id, activity in rows]
    return make_page(members, limit, lambda member: member, lambda member: (member.user_id,))


def _in_the_lifecycle(account: Account, user_id: str, activity: lifecycle.Activity, today: date) -> schemas.Member:
    placement = lifecycle.place(activity, today)
    assert placement.since_day is not None
    return schemas.Member(
        user_id=user_id,
        state=placement.state,
        since=midnight(placement.since_day, account.zone),
        idle_days=(today - activity.last).days,
        last_active_day=activity.last,
    )


async def _on_the_ladder(
    session: AsyncSession, account: Account, users: Sequence[str], as_of: datetime
) -> list[schemas.Member]:
    facts = await ladder_store.read_facts(session, [(account.name, user) for user in users], lambda _: account.zone)
    standings = {user: stand(facts[account.name, user], as_of) for user in users}
    return [
        schemas.Member(user_id=user, state=standing.rung, since=standing.since or as_of)
        for user, standing in standings.items()
    ]


@router.get("/v1/layerings/{layering}/sizes", summary="Sizes of the segments day by day")
async def list_sizes(
    layering: LayeringName, caller: ReaderDep, session: ReadSessionDep, begin: From = None, to: To = None
) -> schemas.Sizes:
    """How many users had been announced to be in each segment at the end of each local day (today: by now). These are
    moves as they were decided, so a day that is over never changes; what is true with all that is known today tells
    `/v1/segments?as_of=`."""
    account = caller.account
    days = _span(account, begin, to)
    if not days:
        return schemas.Sizes(layering=layering, zone=account.zone.key, items=[])
    midnights = [midnight(day, account.zone) for day in (*days, days[-1] + DAY)]
    keys = [key for state in STATES[layering] if (key := segment_key(layering, state))]
    changes = [dict.fromkeys(keys, 0) for _ in (None, *days)]
    for number, segment, change in await moves.count_by_day(session, account.name, layering, midnights):
        changes[number][segment] += change
    sizes = changes[0]
    items = []
    for day, changed in zip(days, changes[1:], strict=True):
        sizes = {key: sizes[key] + changed[key] for key in keys}
        items.append(schemas.DaySizes(day=day, sizes=sizes))
    return schemas.Sizes(layering=layering, zone=account.zone.key, items=items)


@router.get("/v1/layerings/{layering}/flow", summary="How many users went from which segment to which")
async def list_flow(
    layering: LayeringName, caller: ReaderDep, session: ReadSessionDep, begin: From = None, to: To = None
) -> schemas.Flow:
    """Moves by the local day on which they were decided, and in all. Nobody's moves are netted: who left and came back
    counts twice. null: he was, or is now, in no segment, being new, part of another user, or known for nothing."""
    account = caller.account
    days = _span(account, begin, to)
    if not days:
        return schemas.Flow(layering=layering, zone=account.zone.key, total=[], items=[])
    midnights = [midnight(day, account.zone) for day in (*days, days[-1] + DAY)]
    rows = await moves.count_flows(session, account.name, layering, midnights)
    total: dict[tuple[str | None, str | None], int] = {}
    for _, came_from, went_to, count in rows:
        total[came_from, went_to] = total.get((came_from, went_to), 0) + count
    return schemas.Flow(
        layering=layering,
        zone=account.zone.key,
        first_day=days[0],
        last_day=days[-1],
        total=[
            schemas.Moves(segment_from=came_from, segment_to=went_to, moves=count)
            for (came_from, went_to), count in sorted(total.items(), key=lambda item: [name or "" for name in item[0]])
        ],
        items=[
            schemas.DayMoves(day=days[number - 1], segment_from=came_from, segment_to=went_to, moves=count)
            for number, came_from, went_to, count in rows
        ],
    )


def _span(account: Account, begin: date | None, end: date | None) -> list[date]:
    """The local days asked about, as far as anything can have been decided on them."""
    today = local_day(datetime.now(UTC), account.zone)
    last = min(end or today, today)
    if last < EARLIEST:
        return []
    earliest = max(EARLIEST, last - (MOST_DAYS - 1) * DAY)
    first = max(begin, earliest) if begin else max(last - 29 * DAY, earliest)
    return [first + n * DAY for n in range((last - first).days + 1)]
