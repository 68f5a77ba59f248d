"""The worker on a real broker and a real database: applies what comes, waits for the outbox, stops in order."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from libs.common.consumer import Applier, Worker
from libs.common.consumer.offsets import StoredPositions
from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.kafka import Producer, Record
from libs.common.outbox import Relay
from tests.support.folding import rows
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer

TOPIC = "superfan.traits"


@dataclass
class Recorder:
    """Remembers what was applied, and can be made to wait or to fail."""

    seen: list[str] = field(default_factory=list)
    failures: int = 0
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        self.entered.set()
        if self.gate:
            await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError("the database went away")
        self.seen += [event.id for event in events]


@pytest.fixture
async def sessions(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


def make(kafka: TestBroker, sessions: Sessions, producer: Producer, handle: Recorder) -> tuple[Worker, Relay]:
    # A name of its own for each test: groups of the tests before have other members' sessions.
    name = f"profile-{uuid.uuid4().hex[:8]}"
    relay = Relay(name, sessions, producer)
    worker = Worker(
        name,
        kafka.bootstrap,
        [TOPIC],
        applier=Applier(name, sessions, handle, lambda _: False),
        positions=StoredPositions(name, sessions),
        relay=relay,
    )
    return worker, relay


async def send(producer: Producer, count: int) -> list[str]:
    now = datetime.now(UTC)
    events = [
        new_event(
            "profile.traits",
            account="demo",
            source="/t",
            id=uuid.uuid4().hex,
            subject=f"douyin:{n}",
            time=now,
            received=now,
            data={"traits": {}},
        )
        for n in range(count)
    ]
    assert await producer.send([Record(e.topic, e.key, e.to_json()) for e in events], 10) == [None] * count
    return [event.id for event in events]


async def until(condition: object, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.05)


async def test_what_is_sent_is_applied_once(kafka: TestBroker, sessions: Sessions, producer: Producer) -> None:
    recorder = Recorder()
    worker, _ = make(kafka, sessions, producer, recorder)
    assert worker.unready() == f"not consuming {TOPIC}"
    await worker.start()
    try:
        await until(lambda: worker.unready() is None)
        ids = await send(producer, 300)
        await until(lambda: set(ids) <= set(recorder.seen))
        assert worker.stuck() is None
        assert len(recorder.seen) == len(set(recorder.seen))
    finally:
        await worker.stop()


async def test_a_full_outbox_holds_consumption_back(kafka: TestBroker, sessions: Sessions, producer: Producer) -> None:
    recorder = Recorder()
    worker, relay = make(kafka, sessions, producer, recorder)
    await worker.start()
    try:
        first = await send(producer, 5)
        await until(lambda: set(first) <= set(recorder.seen))
        relay.full = True
        await asyncio.sleep(1.5)  # longer than one poll, so that the loop has paused
        held = await send(producer, 5)
        await asyncio.sleep(2)
        assert not set(held) & set(recorder.seen)
        relay.full = False
        await until(lambda: set(held) <= set(recorder.seen))
    finally:
        await worker.stop()


async def test_a_lost_database_is_waited_for(kafka: TestBroker, sessions: Sessions, producer: Producer) -> None:
    recorder = Recorder(failures=3)
    worker, _ = make(kafka, sessions, producer, recorder)
    await worker.start()
    try:
        ids = await send(producer, 5)
        await until(lambda: set(ids) <= set(recorder.seen))
        assert len(recorder.seen) == len(set(recorder.seen))
        assert await rows(sessions, "dead_letter", "digest") == []
    finally:
        await worker.stop()


async def test_a_partition_that_another_member_moved_is_read_again_and_the_rest_goes_on(
    kafka: TestBroker, sessions: Sessions, producer: Producer
) -> None:
    recorder = Recorder()
    worker, _ = make(kafka, sessions, producer, recorder)
    await worker.start()
    try:
        first = await send(producer, 100)  # some in every partition
        await until(lambda: set(first) <= set(recorder.seen))
        async with sessions() as session, session.begin():
            await session.execute(
                text("update consumer_offset set next_offset = next_offset + 1 where partition in (3, 4)")
            )
        second = await send(producer, 100)
        await until(lambda: len(set(second) & set(recorder.seen)) >= 98)
        await asyncio.sleep(0.5)
        assert len(set(second) & set(recorder.seen)) == 98
        assert len(recorder.seen) == len(set(recorder.seen))
    finally:
        await worker.stop()


async def test_stopping_finishes_the_batch_at_hand(kafka: TestBroker, sessions: Sessions, producer: Producer) -> None:
    recorder = Recorder(gate=asyncio.Event())
    worker, _ = make(kafka, sessions, producer, recorder)
    await send(producer, 1)
    await worker.start()
    assert recorder.gate
    await asyncio.wait_for(recorder.entered.wait(), 30)
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0.5)
    assert not stopping.done()
    recorder.gate.set()
    await asyncio.wait_for(stopping, 20)
    applied = await rows(sessions, "event", "id")
    assert len(recorder.seen) == len(applied) >= 1
