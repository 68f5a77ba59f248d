"""Leased work on a real database: one holder a row, expiry hands over, and a late answer counts only while it may."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Index, Integer, MetaData, Table, Text, event, insert, select

from libs.common.db import AsyncSession, Sessions, make_engine, make_sessions
from libs.common.leases import Backoff, Claimed, claim, lease_columns, settle

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LASTING = timedelta(seconds=60)

work = Table(
    "work",
    MetaData(),
    Column("account", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    *lease_columns(),
)
Index("ix_work_due_at", work.c.due_at, postgresql_where=work.c.due_at.is_not(None))


@pytest.fixture
async def sessions(pg_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(pg_url, 10)
    async with engine.begin() as connection:
        await connection.run_sync(work.metadata.create_all)
    yield make_sessions(engine)
    await engine.dispose()


async def plan(sessions: Sessions, count: int, *, due: timedelta = timedelta(), channel: str = "hook") -> None:
    """Work 0…count-1 of the account demo, each a second longer due than the one before it."""
    async with sessions() as session, session.begin():
        await session.execute(
            insert(work),
            [
                {"account": "demo", "number": n, "channel": channel, "due_at": NOW + due - timedelta(seconds=n)}
                for n in range(count)
            ],
        )


async def take(sessions: Sessions, now: datetime = NOW, limit: int = 100) -> list[Claimed]:
    async with sessions() as session, session.begin():
        return await claim(session, work, now, LASTING, limit)


async def finish(sessions: Sessions, claimed: list[Claimed], due_at: datetime | None = None) -> list[int]:
    """Settles and writes the outcome as a sender would: in one transaction, only for what is still held."""
    async with sessions() as session, session.begin():
        held = await settle(session, work, [(one, due_at) for one in claimed])
        for one in held:
            await session.execute(
                work.update().where(work.c.number == one.key[1]).values(state="waiting" if due_at else "done")
            )
    return [one.key[1] for one in held]


async def states(sessions: Sessions) -> dict[int, str]:
    async with sessions() as session:
        return {row.number: row.state for row in await session.execute(select(work.c.number, work.c.state))}


def numbers(claimed: list[Claimed]) -> list[int]:
    return [one.key[1] for one in claimed]


async def test_the_longest_due_is_claimed_first_and_then_by_key(sessions: Sessions) -> None:
    await plan(sessions, 4)
    async with sessions() as session, session.begin():
        same = [{"account": a, "number": n, "channel": "hook", "due_at": NOW} for a in ("b", "a") for n in (12, 11)]
        same.append({"account": "a", "number": 99, "channel": "hook", "due_at": NOW + timedelta(microseconds=1)})
        await session.execute(insert(work), same)
    assert numbers(await take(sessions, limit=2)) == [3, 2]
    rest = await take(sessions)
    assert [one.key for one in rest] == [("demo", 1), ("a", 11), ("a", 12), ("b", 11), ("b", 12), ("demo", 0)]
    assert {one.row.due_at for one in rest} == {NOW + LASTING}
    assert [one.key[1] for one in await take(sessions, NOW + timedelta(microseconds=1))] == [99]


async def test_what_another_has_in_hand_is_passed_over_without_waiting(sessions: Sessions) -> None:
    await plan(sessions, 10)
    async with sessions() as first, first.begin():
        mine = await claim(first, work, NOW, LASTING, 6)
        theirs = await asyncio.wait_for(take(sessions), 5)
        assert sorted(numbers(mine) + numbers(theirs)) == list(range(10))
        await first.rollback()
    assert sorted(numbers(await take(sessions))) == sorted(numbers(mine))


async def test_many_claimers_never_share_a_row(sessions: Sessions) -> None:
    await plan(sessions, 300)
    calls: Counter[int] = Counter()

    async def worker() -> None:
        while claimed := await take(sessions, limit=7):
            calls.update(numbers(claimed))
            await asyncio.sleep(0)
            assert await finish(sessions, claimed) == numbers(claimed)

    await asyncio.gather(*(worker() for _ in range(8)))
    assert calls == Counter(range(300))
    assert set((await states(sessions)).values()) == {"done"}


async def test_a_dead_holders_work_is_handed_over_and_its_late_answer_refused(sessions: Sessions) -> None:
    await plan(sessions, 3)
    dead = await take(sessions)
    assert [(one.attempts, one.abandoned) for one in dead] == [(1, False)] * 3
    assert await take(sessions, NOW + LASTING - timedelta(microseconds=1)) == []
    heir = await take(sessions, NOW + LASTING, limit=2)
    assert [(one.attempts, one.abandoned) for one in heir] == [(2, True)] * 2
    left = set(numbers(dead)) - set(numbers(heir))
    # Nobody has claimed the third: that its holder comes late hurts nobody.
    assert set(await finish(sessions, dead)) == left
    assert await finish(sessions, heir) == numbers(heir)
    assert await finish(sessions, heir) == []
    assert await take(sessions, NOW + 100 * LASTING) == []


async def test_two_answers_at_once_count_once(sessions: Sessions) -> None:
    await plan(sessions, 20)
    dead = await take(sessions)
    heir = await take(sessions, NOW + LASTING)
    for _ in range(3):
        late, good = await asyncio.gather(finish(sessions, dead), finish(sessions, heir, NOW + LASTING))
        assert late == []
        assert sorted(good) == list(range(20))
        heir = await take(sessions, NOW + LASTING)


async def test_a_failure_is_due_again_later_and_is_not_abandoned(sessions: Sessions) -> None:
    await plan(sessions, 2)
    one, other = await take(sessions)
    async with sessions() as session, session.begin():
        held = await settle(session, work, [(one, NOW + timedelta(seconds=5)), (other, None)])
    assert held == [one, other]
    assert await take(sessions, NOW + timedelta(seconds=4)) == []
    (again,) = await take(sessions, NOW + timedelta(seconds=5))
    assert (again.key, again.attempts, again.abandoned) == (one.key, 2, False)


async def test_what_rolls_back_with_its_outcome_stays_held(sessions: Sessions) -> None:
    await plan(sessions, 1)
    claimed = await take(sessions)
    async with sessions() as session:
        assert await settle(session, work, [(claimed[0], None)]) == claimed
        await session.rollback()
    assert await take(sessions) == []
    assert await finish(sessions, claimed) == [0]


async def test_only_what_fits_is_claimed(sessions: Sessions) -> None:
    await plan(sessions, 3)
    async with sessions() as session, session.begin():
        assert await claim(session, work, NOW, LASTING, 10, work.c.channel == "letter") == []
        assert numbers(await claim(session, work, NOW, LASTING, 10, work.c.channel == "hook")) == [2, 1, 0]
        assert await settle(session, work, []) == []


@pytest.mark.parametrize("count", [1, 500])
async def test_a_batch_is_one_statement_each(sessions: Sessions, count: int) -> None:
    await plan(sessions, count)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement.split(maxsplit=1)[0])

    async with sessions() as session, session.begin():
        sync = await raw_connection(session)
        event.listen(sync, "before_cursor_execute", note)
        claimed = await claim(session, work, NOW, LASTING, count)
        await settle(session, work, [(one, None) for one in claimed])
    assert len(claimed) == count
    assert statements == ["WITH", "UPDATE"]


async def raw_connection(session: AsyncSession) -> Any:
    return (await session.connection()).sync_connection


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(timedelta(seconds=2), timedelta(minutes=1))
    seconds = [backoff.after(attempts, 0).total_seconds() for attempts in (1, 2, 3, 4, 5, 6, 7, 1_000_000)]
    assert seconds == [2, 4, 8, 16, 32, 60, 60, 60]
    assert backoff.after(3, 1).total_seconds() == 4
    assert backoff.after(3, 0.5).total_seconds() == 6
    assert all(30 <= backoff.after(50, jitter / 10).total_seconds() <= 60 for jitter in range(11))
