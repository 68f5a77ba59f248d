"""What was booked before double entry is carried over, and back."""

import asyncpg

from libs.common.db import make_engine, make_sessions
from libs.common.migrate import downgrade, upgrade
from tests.rewards.support import check_ledger

OLD = """
    insert into holder (account, subject, account_ref) values
        ('demo', 'douyin:u1', '00000000-0000-0000-0000-000000000001'),
        ('demo', 'douyin:u2', '00000000-0000-0000-0000-000000000002');
    insert into ledger_entry (account, entry_id, account_ref, points, rule, rule_version, event_digest, event_time,
        created_at)
    select 'demo', gen_random_uuid(), ('00000000-0000-0000-0000-00000000000' || n % 2 + 1)::uuid, n % 3, 'like', 1,
        decode(lpad(to_hex(n), 32, '0'), 'hex'), '2026-01-01'::timestamptz + n * interval '1 hour', now()
    from generate_series(1, 20) n;
    insert into balance (account, account_ref, points, revision)
    select account, account_ref, sum(points), count(*) from ledger_entry group by 1, 2;
"""
COLUMNS = "account_ref, points, rule, rule_version, event_digest, event_time, created_at"
ENTRIES = f"select account, {{id}}, {COLUMNS} from ledger_entry"


async def test_entries_become_two_legs_and_a_lot(pg_url: str) -> None:
    await upgrade(pg_url, "rewards", "0002")
    connection = await asyncpg.connect(pg_url)
    try:
        await connection.execute(OLD)
        entries = {tuple(row) for row in await connection.fetch(ENTRIES.format(id="entry_id"))}
        balances = {tuple(row) for row in await connection.fetch("select * from balance")}
        await upgrade(pg_url, "rewards", "0003")
        engine = make_engine(pg_url, 1)
        await check_ledger(make_sessions(engine))
        await engine.dispose()
        legs = ENTRIES.format(id="transaction_id") + " where book = 'wallet'"
        assert {tuple(row) for row in await connection.fetch(legs)} == entries
        assert await connection.fetchval("select count(*) from ledger_entry where book = 'issued'") == 20
        lots = await connection.fetch("select granted, remaining, expires_at from lot")
        assert sorted(tuple(row) for row in lots) == sorted((row[3], row[3], None) for row in entries if row[3])
        await downgrade(pg_url, "rewards", "0002")
        assert {tuple(row) for row in await connection.fetch(ENTRIES.format(id="entry_id"))} == entries
        found = await connection.fetch("select account, account_ref, points, revision from balance")
        assert {tuple(row) for row in found} == balances
        await upgrade(pg_url, "rewards")
    finally:
        await connection.close()
