"""The level of a user."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from libs.common.days import local_day
from libs.common.events import EventTime
from libs.common.identity import resolve
from libs.common.web import problems
from libs.common.web.database import ReadSessionDep
from services.rewards.api import ReaderDep, Ref
from services.rewards.domain.awards import BEGINNING, midnight
from services.rewards.domain.levels import day_after, judge
from services.rewards.schemas import definitions as schemas
from services.rewards.store import levels as store
from services.rewards.store.definitions import read_tables

router = APIRouter(tags=["levels"])


@router.get("/v1/users/{ref}/level", summary="Level of a user", responses=problems(404))
async def get_level(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    known_at: Annotated[EventTime | None, Query(description="what was known then, on that day; now if absent")] = None,
) -> schemas.UserLevel:
    """The level on the day, what it rests on, and what is missing to the next one."""
    account, zone = caller.account.name, caller.account.zone
    user = await resolve(session, account, ref)
    today = local_day(known_at or datetime.now(UTC), zone)
    tables = (await read_tables(session, [account], known_at))[account]
    key = (account, user.user_id)
    growth = (await store.read_growth(session, {key: zone.key}, known_at))[key]
    standing = judge(growth, tables, today)
    version = tables.on(today)
    levels = version.table.levels
    counted_from = None if version.table.window == "all_time" else day_after(today, 1 - version.table.window_days)
    above = levels[standing.level + 1] if standing.level + 1 < len(levels) else None
    return schemas.UserLevel(
        user_id=user.user_id,
        rank=standing.level,
        level=levels[standing.level].key,
        name=levels[standing.level].name,
        growth=standing.growth,
        reached_on=standing.reached_on,
        judged_again_on=standing.judged_on,
        next=above
        and schemas.NextLevel(
            level=above.key, name=above.name, growth=above.growth, missing=max(0, above.growth - standing.growth)
        ),
        counted_from=counted_from,
        by_rule=await store.read_growth_by_rule(
            session,
            account,
            user.subjects,
            midnight(counted_from.toordinal(), zone) if counted_from else BEGINNING,
            midnight(today.toordinal() + 1, zone),
            known_at,
        ),
        table_version=version.version,
    )
