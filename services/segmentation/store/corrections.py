"""What a rebuild looks for in segmentation's tables."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.segmentation.domain.lifecycle import Thresholds
from services.segmentation.store import UserKey


async def find_wrong(session: AsyncSession, thresholds: Thresholds) -> list[tuple[UserKey, str]]:
    """Users whose first, last or return day is not what their active days amount to, in key order, each with the
    smallest of his subjects."""
    rows = await session.execute(
        text(
            "with gaps as (select account, user_id, day,"
            " lag(day) over (partition by account, user_id order by day) as previous from"
            " (select distinct a.account, a.user_id, d.day from alias a join active_day d using (account, subject)) u),"
            " right_now as (select account, user_id, min(day) as first_day, max(day) as last_day,"
            " max(day) filter (where day - previous - 1 > :quiet) as returned_day from gaps group by account, user_id),"
            " wrong as (select account, user_id from right_now r full join lifecycle_state s using (account, user_id)"
            " where (r.first_day, r.last_day, r.returned_day)"
            " is distinct from (s.first_day, s.last_day, s.returned_day))"
            " select account, user_id, min(a.subject) as subject from wrong join alias a using (account, user_id)"
            ' group by account, user_id order by account collate "C", user_id collate "C"'
        ),
        {"quiet": thresholds.quiet},
    )
    return [((row.account, row.user_id), row.subject) for row in rows]
