"""Migration 0003 carries over what the first release had decided, and can be taken back."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from libs.common.migrate import downgrade, upgrade

BEFORE = [
    """insert into event (digest, fingerprint, account, source, id, type, subject, time, received, trust, backfill,
            data)
        select decode(md5(id), 'hex'), 1, 'demo', source, id, type, 'douyin:u1', time::timestamptz, now(), 'server',
            false, '{"purpose": "marketing", "channel": "sms"}'::jsonb
        from (values
            ('/t', 'a', 'consent.granted', '2026-06-01T08:00:00Z'),
            ('/t', 'b', 'consent.revoked', '2026-06-02T08:00:00Z'),
            ('/T', 'c', 'consent.granted', '2026-06-02T08:00:00Z')) as v(source, id, type, time)""",
    """insert into message (account, user_id, journey, step, message_id, journey_version, subject, channel, created_at)
        values ('demo', 'usr_1', 'welcome', 'hello', 'msg_1', 1, 'douyin:u1', 'in_app', '2026-06-01T08:00:01Z')""",
    """insert into decision (account, subject, event_digest, journey, decision_id, journey_version, step, channel,
            purpose, user_id, revision, outcome, reason, values, message_id, event_source, event_id, event_time,
            decided_at)
        select 'demo', 'douyin:u1', decode(md5(id), 'hex'), 'welcome', 'welcome:' || md5(id), 1, 'hello', 'in_app',
            'service', 'usr_1', revision, outcome, reason, '{"backfill": false}'::jsonb, message_id, '/t', id,
            '2026-06-01T08:00:00Z', '2026-06-01T08:00:01Z'
        from (values ('d', 1, 'sent', null, 'msg_1'), ('e', 2, 'skipped', 'already_welcomed', null))
            as v(id, revision, outcome, reason, message_id)""",
]


async def read(engine: AsyncEngine, statement: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement))]


async def test_welcomes_and_consents_are_carried_over(pg_url: str) -> None:
    await upgrade(pg_url, "engagement", "0002")
    engine = create_async_engine(pg_url.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.begin() as connection:
        for statement in BEFORE:
            await connection.exec_driver_sql(statement)
    await upgrade(pg_url, "engagement")
    assert await read(engine, "select subject, purpose, channel, granted, source, id from consent") == [
        ("douyin:u1", "marketing", "sms", False, "/t", "b")
    ]
    assert await read(
        engine,
        "select message_id, kind, purpose, left(run, 8), turns, state, held, let_through_at = created_at,"
        " sent_at = created_at, expires_at = '2026-06-02T08:00:00Z', revision, due_at from message",
    ) == [("msg_1", "in_app", "service", "welcome:", 1, "sent", False, True, True, True, 1, None)]
    assert await read(
        engine, "select turn, outcome, reason, gates, event_type, message_id from decision order by revision"
    ) == [(1, "sent", None, [], "follow", "msg_1"), (1, "skipped", "already_messaged", [], "follow", None)]

    await downgrade(pg_url, "engagement", "0002")
    assert await read(engine, "select message_id from message") == [("msg_1",)]
    assert await read(engine, "select reason from decision order by revision") == [(None,), ("already_welcomed",)]
    await upgrade(pg_url, "engagement")
    await engine.dispose()
