"""What waits for a commit: done once it is there, never for what was rolled back."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from libs.common.db import AsyncSession, Sessions, after_commit, make_engine, make_sessions


@pytest.fixture
async def sessions(pg_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(pg_url, 2)
    yield make_sessions(engine)
    await engine.dispose()


async def work(session: AsyncSession, done: list[str], name: str) -> None:
    await session.execute(text("select 1"))
    after_commit(session, lambda: done.append(name))


async def test_what_is_committed_is_done_in_order_and_only_then(sessions: Sessions) -> None:
    done: list[str] = []
    async with sessions() as session, session.begin():
        await work(session, done, "a")
        async with session.begin_nested():
            await work(session, done, "b")
            async with session.begin_nested():
                await work(session, done, "c")
        await work(session, done, "d")
        assert done == []
    assert done == ["a", "b", "c", "d"]


async def test_a_savepoint_takes_back_what_was_asked_for_within_it(sessions: Sessions) -> None:
    done: list[str] = []
    async with sessions() as session, session.begin():
        await work(session, done, "kept")
        outer = await session.begin_nested()
        await work(session, done, "outer")
        async with session.begin_nested():
            await work(session, done, "inner, released")
        await outer.rollback()
        async with session.begin_nested():
            inner = await session.begin_nested()
            await work(session, done, "inner")
            await inner.rollback()
            await work(session, done, "kept too")
    assert done == ["kept", "kept too"]


async def test_a_session_goes_on_without_what_it_rolled_back(sessions: Sessions) -> None:
    done: list[str] = []
    async with sessions() as session:
        after_commit(session, lambda: done.append("before its first statement"))
        await work(session, done, "rolled back")
        await session.rollback()
        await work(session, done, "given up")
        await session.close()
        await work(session, done, "kept")
        await session.commit()
        await session.execute(text("select 1"))
        await session.commit()
    async with sessions() as session:
        await work(session, done, "never committed")
    assert done == ["kept"]
