"""Derived events leave once their cause is committed: at least once, never lost, never for what was rolled back."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from libs.common import outbox
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.kafka import Producer, end_offsets
from libs.common.outbox import Relay
from tests.support.folding import rows
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer

TOPIC = "superfan.profiles"


@pytest.fixture
async def sessions(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


def events(count: int) -> list[AnyEvent]:
    now = datetime.now(UTC)
    return [
        new_event(
            "sign_in",
            account="demo",
            source="/t",
            id=uuid.uuid4().hex,
            subject=f"douyin:{n}",
            time=now,
            received=now,
            data={},
        )
        for n in range(count)
    ]


async def end(kafka: TestBroker) -> int:
    return sum((await end_offsets(kafka.bootstrap, ["superfan.interactions"])).values())


async def test_what_is_committed_is_published_and_removed(
    sessions: Sessions, producer: Producer, kafka: TestBroker
) -> None:
    before = await end(kafka)
    async with sessions() as session, session.begin():
        await outbox.add(session, events(700))
    relay = Relay("profile", sessions, producer)
    assert await relay.publish_some() == 500
    assert await relay.publish_some() == 200
    assert await relay.publish_some() == 0
    assert await end(kafka) == before + 700
    assert await rows(sessions, "outbox", "id") == []


async def test_what_is_rolled_back_is_not_published(sessions: Sessions, producer: Producer) -> None:
    async with sessions() as session:
        await outbox.add(session, events(3))
        await session.rollback()
    assert await Relay("profile", sessions, producer).publish_some() == 0


async def test_a_dead_broker_keeps_the_rows(sessions: Sessions, producer: Producer, kafka: TestBroker) -> None:
    async with sessions() as session, session.begin():
        await outbox.add(session, events(3))
    relay = Relay("profile", sessions, producer)
    await kafka.kill()
    try:
        with pytest.raises(Exception, match=r"."):
            await relay.publish_some()
        assert len(await rows(sessions, "outbox", "id")) == 3
        waiting = outbox.OUTBOX_ROWS.labels("profile")
        waiting.set(0)
        await relay.start()
        async with asyncio.timeout(40):
            while waiting._value.get() != 3:  # told although nothing can be published
                await asyncio.sleep(0.1)
    finally:
        await kafka.start()
    async with asyncio.timeout(40):
        while await rows(sessions, "outbox", "id"):
            await asyncio.sleep(0.1)
    await relay.stop()


async def test_two_relays_take_different_rows(sessions: Sessions, producer: Producer, kafka: TestBroker) -> None:
    before = await end(kafka)
    async with sessions() as session, session.begin():
        await outbox.add(session, events(900))
    relays = [Relay("profile", sessions, producer) for _ in range(2)]
    moved = await asyncio.gather(*(relay.publish_some() for relay in relays))
    assert sorted(moved) == [400, 500]
    assert await end(kafka) == before + 900


async def test_a_full_outbox_is_told_until_it_is_half_empty(
    sessions: Sessions, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FULL_AT", 10)
    monkeypatch.setattr(outbox, "FREE_AT", 5)
    relay = Relay("profile", sessions, producer)

    async def full_with(count: int) -> bool:
        async with sessions() as session, session.begin():
            await session.execute(text("truncate outbox"))
            await outbox.add(session, events(count))
        await relay._count()
        return relay.full

    assert [await full_with(count) for count in (10, 11, 8, 6, 5, 8)] == [False, True, True, True, False, False]
