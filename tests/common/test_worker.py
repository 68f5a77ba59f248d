"""The worker on a real broker and a real database: applies what comes, waits for the outbox, stops in order."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from libs.common.consumer import Applier, Worker
from libs.common.consumer.offsets import StoredPositions
from libs.common.consumer.worker import halve
from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.kafka import Batch, Producer, Record, end_offsets
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
    pause: float = 0
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        self.entered.set()
        if self.gate:
            await self.gate.wait()
        await asyncio.sleep(self.pause)
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError("the database went away")
        self.seen += [event.id for event in events]


@pytest.fixture
async def sessions(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


def new_name() -> str:
    """Of its own for each test: groups of the tests before have other members' sessions."""
    return f"profile-{uuid.uuid4().hex[:8]}"


def make(
    kafka: TestBroker, sessions: Sessions, producer: Producer, handle: Recorder, name: str | None = None
) -> tuple[Worker, Relay]:
    name = name or new_name()
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


@dataclass
class Overlapping(Recorder):
    """Tells how many transactions were at work at once, at most."""

    running: int = 0
    most: int = 0

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.2)
        await super().__call__(session, events, now)
        self.running -= 1


async def test_a_backlog_is_applied_by_two_transactions_and_a_partition_moved_elsewhere_is_read_again(
    kafka: TestBroker, sessions: Sessions, producer: Producer
) -> None:
    recorder = Overlapping()
    worker, relay = make(kafka, sessions, producer, recorder)
    await worker.start()
    try:
        first = await send(producer, 100)  # some in every partition
        await until(lambda: set(first) <= set(recorder.seen))
        relay.full = True
        await asyncio.sleep(1.5)  # longer than one poll, so that the loop has paused
        async with sessions() as session, session.begin():
            await session.execute(
                text("update consumer_offset set next_offset = next_offset + 1 where partition in (3, 4)")
            )
        second = await send(producer, 800)
        relay.full = False
        await until(lambda: len(set(second) & set(recorder.seen)) >= 798)
        await asyncio.sleep(0.5)
        assert len(set(second) & set(recorder.seen)) == 798
        assert len(recorder.seen) == len(set(recorder.seen))
        assert recorder.most == 2
    finally:
        await worker.stop()


def test_a_poll_is_halved_by_its_records() -> None:
    def batch(partition: int, records: int) -> Batch:
        return Batch(TOPIC, partition, 0, records, [None] * records)  # type: ignore[list-item]

    def sizes(*records: int) -> list[int]:
        return [sum(len(b.records) for b in half) for half in halve([batch(n, r) for n, r in enumerate(records)])]

    assert sizes(399) == sizes(200, 199) == [399]
    assert sizes(1000) == [1000]  # of one partition, so in order
    assert sizes(300, 100, 100, 100) == [300, 300]
    assert sizes(500, 3) == [500, 3]


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


async def test_records_that_retention_removed_unread_are_counted(
    kafka: TestBroker, sessions: Sessions, producer: Producer
) -> None:
    recorder, name = Recorder(), new_name()
    worker, _ = make(kafka, sessions, producer, recorder, name)
    await worker.start()
    first = await send(producer, 50)
    await until(lambda: set(first) <= set(recorder.seen))
    await worker.stop()
    assert expired(name) == 0
    before = await end_offsets(kafka.bootstrap, [TOPIC])
    lost = await send(producer, 50)
    between = await end_offsets(kafka.bootstrap, [TOPIC])
    await kafka.delete_records(between)
    last = await send(producer, 50)  # of the same fans, so in the same partitions
    again, _ = make(kafka, sessions, producer, recorder, name)
    await again.start()
    try:
        await until(lambda: set(last) <= set(recorder.seen))
        assert not set(lost) & set(recorder.seen)
        await until(lambda: expired(name) == 50)
        assert sum(between.values()) - sum(before.values()) == 50
    finally:
        await again.stop()


def expired(name: str) -> float:
    labels = {"service": name, "topic": TOPIC}
    return REGISTRY.get_sample_value("superfan_records_expired_total", labels) or 0


async def test_wedged_is_told_from_slow_and_from_waiting(
    kafka: TestBroker, sessions: Sessions, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a loop that does not move at all is one that a restart would mend."""
    monkeypatch.setattr("libs.common.consumer.worker.STUCK_SECONDS", 4)
    recorder = Recorder(pause=1)
    worker, _ = make(kafka, sessions, producer, recorder)

    async def stays_live(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert worker.stuck() is None
            await asyncio.sleep(0.1)

    await worker.start()
    try:
        await until(lambda: worker.unready() is None)
        ids: set[str] = set()
        for _ in range(5):  # slow: batch after batch, each shorter than the limit and all of them longer
            ids.update(await send(producer, 5))
            await stays_live(1.1)
        await until(lambda: ids <= set(recorder.seen))
        recorder.pause = 0
        kafka.freeze()  # waiting for Kafka
        await stays_live(5)
        kafka.thaw()
        recorder.failures = 10  # waiting for the database
        ids.update(await send(producer, 5))
        await stays_live(5)
        recorder.failures = 0
        await until(lambda: ids <= set(recorder.seen))
        assert worker.unready() is None
        recorder.gate = asyncio.Event()
        await send(producer, 1)
        await until(lambda: worker.stuck() is not None)
        assert worker.stuck() == f"no progress for 4 s on {TOPIC}"
        recorder.gate.set()
        await until(lambda: worker.stuck() is None)
    finally:
        kafka.thaw()
        if recorder.gate:
            recorder.gate.set()
        await worker.stop()
    assert worker.stuck() == f"ended: consume {TOPIC}"
