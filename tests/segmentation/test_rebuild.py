"""What segmentation tells after a rebuild: only what did not follow from the days when it was announced."""

from datetime import timedelta

from sqlalchemy import text

from libs.common.db import Sessions
from libs.common.rebuild import Rebuilt, rebuild
from services.segmentation.jobs import FACTS
from tests.segmentation.conftest import account_of
from tests.segmentation.support import LIFECYCLE_MOVES, event, notices, told
from tests.support.folding import NOW, Log, rows


async def run(sessions: Sessions, days_later: float) -> Rebuilt:
    url = sessions.kw["bind"].url.set(drivername="postgresql").render_as_string(hide_password=False)
    return await rebuild(url, FACTS, account_of, NOW + timedelta(days=days_later))


async def execute(sessions: Sessions, statement: str) -> None:
    async with sessions() as session, session.begin():
        await session.execute(text(statement))


async def test_a_state_that_never_followed_is_told(sessions: Sessions, log: Log) -> None:
    await log.apply([event("1", 0), event("2", 0, subject="douyin:u2")])
    before = await rows(sessions, "lifecycle_state", "*")
    await execute(sessions, "update event set time = time - interval '20 days' where id = '1'")
    done = await run(sessions, 1)
    assert done.announced == 1
    changed = {table: count for table, count in done.changed.items() if count}
    assert changed == {"active_day": 2, "first_interaction": 1}
    ours = [notice for notice in await notices(sessions) if notice["subject"] == "douyin:u1"]
    assert [told(notice) for notice in ours] == [
        ("segment.entered", "lifecycle.new", 1, "event", True),
        ("segment.left", "lifecycle.new", 2, "rule_changed", False),
        ("segment.entered", "lifecycle.dormant", 3, "rule_changed", False),
    ]
    state = "state, first_day, last_day, flips_on"
    one, two = await rows(sessions, "lifecycle_state s join alias a using (account, user_id)", f"subject, {state}")
    assert one[1] == "dormant"
    assert one[2] == one[3] == (NOW - timedelta(days=20)).date()
    assert two[1] == "new"
    assert [row for row in await rows(sessions, "lifecycle_state", "*") if row in before], "the other one stays"
    changes = await rows(sessions, LIFECYCLE_MOVES, "revision, reason, segment_to")
    assert changes == [(1, "event", "lifecycle.new")] * 2 + [(3, "rule_changed", "lifecycle.dormant")]
    assert (await run(sessions, 1)).announced == 0


async def test_what_time_alone_changes_is_left_to_the_sweep(sessions: Sessions, log: Log) -> None:
    await log.apply([event("1", 0)])
    before = await rows(sessions, "lifecycle_state", "*")
    await execute(sessions, "update lifecycle_state set first_day = first_day - 100, flips_on = null")
    done = await run(sessions, 40)
    assert done.announced == 0
    assert await rows(sessions, "lifecycle_state", "*") == before
    assert len(await notices(sessions)) == 1
