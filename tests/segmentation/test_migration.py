"""What a database of the version before keeps when the ladder, orders and RFM come."""

from datetime import timedelta

from sqlalchemy import text

from libs.common.db import make_engine, make_sessions
from libs.common.migrate import downgrade, upgrade
from libs.common.rebuild import rebuild
from services.segmentation.consumer import keep_data, make_handler
from services.segmentation.jobs import FACTS
from tests.segmentation.conftest import account_of
from tests.segmentation.support import event, notices, told
from tests.support.folding import NOW, Log, rows

OLD = """
    insert into event (digest, fingerprint, account, source, id, type, subject, time, received, trust, backfill)
    select decode(md5(id), 'hex'), 1, 'demo', '/t', id, type, subject, time, time, 'server', false from (values
        ('1', 'follow', 'douyin:u1', timestamptz '2026-06-01 12:00Z'),
        ('2', 'like', 'douyin:u1', timestamptz '2026-06-03 12:00Z'),
        ('3', 'comment', 'douyin:u1', timestamptz '2026-06-02 12:00Z'),
        ('4', 'view', 'douyin:u2', timestamptz '2026-06-02 12:00Z'),
        ('5', 'order.paid', 'douyin:u2', timestamptz '2026-06-04 12:00Z')) as e(id, type, subject, time);
    insert into alias (account, subject, own_id, user_id)
    values ('demo', 'douyin:u1', 'usr_1', 'usr_1'), ('demo', 'douyin:u2', 'usr_2', 'usr_2');
    insert into active_day values ('demo', 'douyin:u1', '2026-06-01'), ('demo', 'douyin:u1', '2026-06-02'),
        ('demo', 'douyin:u1', '2026-06-03'), ('demo', 'douyin:u2', '2026-06-02'), ('demo', 'douyin:u2', '2026-06-04');
    insert into lifecycle_state values
        ('demo', 'usr_1', '2026-06-01', '2026-06-03', null, 'active', '2026-06-07 16:00Z', '2026-06-12', 3, now()),
        ('demo', 'usr_2', '2026-06-02', '2026-06-04', null, 'active', '2026-06-08 16:00Z', '2026-06-13', 3, now());
    insert into membership_change values
        ('demo', 'usr_1', 'lifecycle', 1, null, 'lifecycle.new', 'event', true, now(), now())
"""


async def test_what_is_carried_over(pg_url: str) -> None:
    await upgrade(pg_url, "segmentation", "0002")
    engine = make_engine(pg_url, 3)
    sessions = make_sessions(engine)
    try:
        async with sessions() as session, session.begin():
            for statement in OLD.split(";"):
                await session.execute(text(statement))
        before = {table: await rows(sessions, table, "*") for table in ("lifecycle_state", "membership_change")}
        await upgrade(pg_url, "segmentation")
        assert {table: await rows(sessions, table, "*") for table in before} == before
        assert await rows(sessions, "following_change", "subject, id, following") == [("douyin:u1", "1", True)]
        assert [time.day for (time,) in await rows(sessions, "first_interaction", "time")] == [2]
        assert await rows(sessions, "event", "id") == [("1",), ("2",), ("3",), ("4",)]
        assert len(await rows(sessions, "active_day", "day")) == 5

        await rebuild(pg_url, FACTS, account_of, NOW)
        assert await rows(sessions, "ladder_state", "user_id, state") == [("usr_1", "user"), ("usr_2", "visitor")]
        assert {(told(n)[1], told(n)[3]) for n in await notices(sessions, layering="ladder")} == {
            ("ladder.user", "rule_changed"),
            ("ladder.visitor", "rule_changed"),
        }
        # The order, sent again under its old identity, counts now.
        order = event("5", 0, type="order.paid", subject="douyin:u2")
        order.time = NOW - timedelta(days=11)
        await Log("segmentation", sessions, make_handler(account_of), keep_data).apply([order])
        assert ("usr_2", "customer") in await rows(sessions, "ladder_state", "user_id, state")

        await downgrade(pg_url, "segmentation", "0002")
        assert await rows(sessions, "active_day", "subject, day") != []
    finally:
        await engine.dispose()
