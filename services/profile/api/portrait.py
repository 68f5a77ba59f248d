"""The behaviour portrait and the overview."""

from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import APIRouter

from libs.common.days import local_day, streak_of
from libs.common.identity import resolve, user_id_of
from libs.common.web import problems
from libs.common.web.database import ReadSessionDep
from services.profile.api.parameters import AsOf, ReaderDep, Ref
from services.profile.domain import activity, behaviour, notices, traits
from services.profile.schemas import portrait as schemas
from services.profile.store import activity as store
from services.profile.store import known

router = APIRouter(tags=["users"])


@router.get("/v1/users/{ref}/behaviour", summary="What one fan does, and when", responses=problems(404))
async def get_behaviour(ref: Ref, caller: ReaderDep, session: ReadSessionDep, as_of: AsOf = None) -> schemas.Behaviour:
    """Counts of all time and of the last 7, 30 and 90 days, active hours, and how long he watches."""
    instant = as_of or datetime.now(UTC)
    today = local_day(instant, caller.account.zone)
    user = await resolve(session, caller.account.name, ref)
    found = behaviour.windows(
        await store.read_days(session, user.account, user.subjects, today),
        await store.read_watched(session, user.account, user.subjects, today),
        today,
    )
    hours = behaviour.histogram(await store.read_hours(session, user.account, user.subjects, today))
    return schemas.Behaviour(
        user_id=user.user_id,
        as_of=instant,
        today=today,
        windows=[_window(window) for window in found],
        hours=hours,
        typical_hour=behaviour.typical_hour(hours),
    )


@router.get("/v1/users/{ref}/overview", summary="One fan for an app, in one call", responses=problems(404))
async def get_overview(ref: Ref, caller: ReaderDep, session: ReadSessionDep) -> schemas.Overview:
    """Traits, lifecycle, ladder, segments, level, balance, streak and last message, each with its freshness."""
    now = datetime.now(UTC)
    user = await resolve(session, caller.account.name, ref)
    seen = await store.read_seen(session, user.account, list(user.subjects))
    portrait = activity.portray(seen.values(), [])
    own_ids = [user_id_of(user.account, subject) for subject in user.subjects]
    told = notices.sort_out(await known.read_notices(session, user.account, own_ids), user.user_id, own_ids)
    days = await store.read_sign_ins(session, user.account, user.subjects)
    of_user = traits.merge(await known.read_traits(session, user.account, user.subjects))
    placements = {name: _placement(notice) for name, notice in told.segments.items()}
    return schemas.Overview(
        user_id=user.user_id,
        subjects=list(user.subjects),
        as_of=now,
        following=portrait.following,
        first_seen=portrait.first_seen,
        last_seen=portrait.last_seen,
        traits=_traits(of_user),
        lifecycle=placements.get("lifecycle"),
        ladder=placements.get("ladder"),
        segments=sorted(placements.values(), key=lambda placement: placement.segment),
        level=_level(told.level) if told.level else None,
        balance=schemas.Balance(points=told.balance, told_at=told.balance_at),
        streak=schemas.Streak.model_validate(
            streak_of(days, local_day(now, caller.account.zone)), from_attributes=True
        ),
        last_message=_message(told.last_message) if told.last_message else None,
    )


def _window(window: behaviour.Window) -> schemas.Window:
    watched, active = window.watched, len(window.active)
    return schemas.Window(
        days=window.days,
        first_day=window.first_day,
        counts=dict(sorted(window.counts.items())),
        active_days=active,
        views_per_active_day=_ratio(window.counts["view"], active),
        watch_ms=watched.watch_ms,
        completed_views=watched.completed,
        completion_rate=_ratio(watched.completed, watched.measured),
        watched_share=_ratio(watched.within_ms, watched.duration_ms),
    )


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _traits(of_user: Mapping[str, traits.Trait]) -> dict[str, schemas.Trait]:
    return {
        name: schemas.Trait(
            value=traits.mask(name, trait.value),
            trust=trait.trust,
            source=trait.told.source,
            event_id=trait.told.event_id,
            time=trait.told.time,
        )
        for name, trait in of_user.items()
    }


def _placement(notice: notices.Notice) -> schemas.Placement:
    return schemas.Placement(segment=notice.data["segment"], since=notice.since, told_at=notice.time)


def _level(notice: notices.Notice) -> schemas.Level:
    data = notice.data
    return schemas.Level(
        level=data["level"],
        name=data["name"],
        rank=data["rank"],
        growth=data["growth"],
        since=notice.since,
        told_at=notice.time,
    )


def _message(notice: notices.Notice) -> schemas.LastMessage:
    data = notice.data
    return schemas.LastMessage(
        journey=data["journey"],
        step=data["step"],
        channel=data["channel"],
        message_id=data.get("message_id"),
        since=notice.since,
        told_at=notice.time,
    )
