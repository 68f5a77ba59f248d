"""The Kafka wrapper on a real broker: answers per record, deadlines that hold, positions from outside."""

import asyncio
import random
import time
import uuid

import pytest
from aiokafka.partitioner import DefaultPartitioner

from libs.cli.local.processes import free_ports
from libs.common.events import TOPICS
from libs.common.kafka import Batch, Consumer, Producer, Record, apply_topics, cluster_id, end_offsets, tail
from libs.common.kafka.lanes import partition_of
from libs.common.kafka.producer import MAX_RECORD_BYTES
from tests.support.kafka import TestBroker

TOPIC = "superfan.rejected"


def record(value: bytes = b"{}", key: bytes = b"k", topic: str = TOPIC) -> Record:
    return Record(topic, key, value)


class Stored:
    """Positions in memory, as a service keeps them in its database."""

    def __init__(self, positions: dict[tuple[str, int], int] | None = None) -> None:
        self.positions = positions or {}
        self.resets: list[dict[tuple[str, int], int]] = []

    async def load(self, cluster: str, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return {key: self.positions[key] for key in partitions if key in self.positions}

    async def reset(self, cluster: str, begins: dict[tuple[str, int], int]) -> None:
        self.resets.append(begins)
        self.positions.update(begins)


async def no_work() -> None:
    """Nothing is in flight."""


def consumer_of(kafka: TestBroker, stored: Stored, group: str) -> Consumer:
    return Consumer(kafka.bootstrap, group, TOPIC, client_id="test", positions=stored, drain=no_work)


async def poll_until(consumer: Consumer, count: int, seconds: float = 20) -> list[Batch]:
    batches: list[Batch] = []
    end = time.monotonic() + seconds
    while sum(len(batch.records) for batch in batches) < count and time.monotonic() < end:
        batches += await consumer.poll(500, 0.2)
    return batches


async def test_topics_are_made_once(kafka: TestBroker) -> None:
    assert await apply_topics(kafka.bootstrap) == []
    ends = await end_offsets(kafka.bootstrap, [topic.name for topic in TOPICS])
    assert len(ends) == len(TOPICS) * 12


async def test_each_record_has_its_own_outcome(producer: Producer) -> None:
    outcomes = await producer.send([record(), record(b"x" * (MAX_RECORD_BYTES + 1)), record()], 5)
    assert outcomes[0] is None
    assert type(outcomes[1]).__name__ == "MessageSizeTooLargeError"
    assert outcomes[2] is None
    assert producer.problem is None


async def test_many_records_of_many_keys(producer: Producer, kafka: TestBroker) -> None:
    before = sum((await end_offsets(kafka.bootstrap, [TOPIC])).values())
    outcomes = await producer.send([record(b"v", b"%d" % n) for n in range(2000)], 10)
    assert outcomes == [None] * 2000
    assert sum((await end_offsets(kafka.bootstrap, [TOPIC])).values()) == before + 2000


def test_keys_go_to_the_partitions_that_every_client_chooses() -> None:
    usual = DefaultPartitioner()
    for partitions in (list(range(12)), list(range(1000))):
        for size in (*range(70), 1023, 1024, 2000):
            key = random.Random(size).randbytes(size)
            assert partition_of(key, partitions) == usual(key, partitions, partitions)


async def test_records_of_one_key_keep_their_order_whatever_they_are_sent_with(
    producer: Producer, kafka: TestBroker
) -> None:
    key = uuid.uuid4().bytes
    calls = [[record(b"%d" % (number + more), key) for more in range(3)] for number in range(0, 600, 3)]
    outcomes = await asyncio.gather(*(producer.send(call, 10) for call in calls))
    assert outcomes == [[None] * 3] * 200
    values: list[bytes | None] = []
    async with asyncio.timeout(20):
        async for message in tail(kafka.bootstrap, [TOPIC], from_start=True):
            if message.key == key:
                values.append(message.value)
            if len(values) == 600:
                break
    assert values == [b"%d" % number for number in range(600)]


async def test_what_waited_in_vain_is_not_sent_later(producer: Producer, kafka: TestBroker) -> None:
    """Its caller has stored it elsewhere by then."""
    await producer.send([record(b"before", b"late")], 5)
    before = sum((await end_offsets(kafka.bootstrap, [TOPIC])).values())
    kafka.freeze()
    try:
        in_flight = asyncio.create_task(producer.send([record(b"in flight", b"late")], 8))
        await asyncio.sleep(1)  # until its batch is taken: what joins it would go with it
        outcomes = await asyncio.gather(*(producer.send([record(b"%d" % n, b"late")], 0.3) for n in range(50)))
    finally:
        kafka.thaw()
    assert {type(outcome) for (outcome,) in outcomes} == {TimeoutError}
    assert await in_flight == [None]
    assert await producer.send([record(b"after", b"late")], 5) == [None]
    assert sum((await end_offsets(kafka.bootstrap, [TOPIC])).values()) == before + 2


async def test_a_dead_broker_is_told_within_the_deadline_and_recovered_from(
    producer: Producer, kafka: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kafka.kill()
    try:
        outcomes = await asyncio.wait_for(producer.send([record()] * 3, 0.8), 5)
        assert all(outcome is not None for outcome in outcomes)
        assert producer.problem
        # A process that gets no requests because it is unready must not stay so.
        with monkeypatch.context() as patch:
            patch.setattr("libs.common.kafka.producer.FORGOTTEN_AFTER_SECONDS", 0)
            assert producer.problem is None
    finally:
        await kafka.start()
    async with asyncio.timeout(30):
        while (await producer.send([record()], 1))[0] is not None:
            await asyncio.sleep(0.1)
    assert producer.problem is None


async def test_a_producer_starts_before_its_broker() -> None:
    producer = Producer(f"127.0.0.1:{free_ports(1)[0]}", "test")
    await asyncio.wait_for(producer.start(), 10)
    try:
        assert producer.problem == "not connected to Kafka"
        (outcome,) = await producer.send([record()], 0.5)
        assert type(outcome).__name__ == "NotConnectedError"
    finally:
        await asyncio.wait_for(producer.stop(), 10)


async def test_reading_starts_where_the_caller_says(producer: Producer, kafka: TestBroker) -> None:
    """Neither at Kafka's own committed offset nor at either end."""
    await producer.send([record(b"v", b"one key") for _ in range(50)], 5)
    ends = await end_offsets(kafka.bootstrap, [TOPIC])
    stored = Stored(dict(ends))
    partition = next(key for key, end in ends.items() if end >= 50)
    stored.positions[partition] = ends[partition] - 7
    consumer = consumer_of(kafka, stored, f"test-{uuid.uuid4().hex}")
    await consumer.start()
    try:
        (batch,) = await poll_until(consumer, 7)
        assert (batch.topic, batch.partition) == partition
        assert batch.position == ends[partition] - 7
        assert [message.offset for message in batch.records] == list(range(batch.position, batch.next_offset))
        assert stored.resets == []
        assert consumer.cluster_id == await cluster_id(kafka.bootstrap)
        assert consumer.lag() == 0

        consumer.forget(batch)
        assert not consumer.owns(batch)
        (again,) = await poll_until(consumer, 7)
        assert [message.offset for message in again.records] == [message.offset for message in batch.records]
        assert consumer.owns(again)
    finally:
        await consumer.stop()


async def test_without_a_position_or_past_the_end_reading_starts_at_the_earliest(
    producer: Producer, kafka: TestBroker
) -> None:
    await producer.send([record()], 5)
    ends = await end_offsets(kafka.bootstrap, [TOPIC])
    past = next(key for key, end in ends.items() if end)
    stored = Stored({past: ends[past] + 1000})
    consumer = consumer_of(kafka, stored, f"test-{uuid.uuid4().hex}")
    await consumer.start()
    try:
        total = sum(ends.values())
        batches = await poll_until(consumer, total)
        assert sum(len(batch.records) for batch in batches) == total
        assert stored.resets == [dict.fromkeys(ends, 0)]
    finally:
        await consumer.stop()


async def test_two_members_share_the_partitions_and_one_takes_over(producer: Producer, kafka: TestBroker) -> None:
    stored = Stored(dict(await end_offsets(kafka.bootstrap, [TOPIC])))
    group = f"test-{uuid.uuid4().hex}"
    first, second = consumer_of(kafka, stored, group), consumer_of(kafka, stored, group)
    await first.start()
    await second.start()

    async def keep_polling(consumer: Consumer) -> None:
        while True:
            await consumer.poll(500, 0.1)

    polling = [asyncio.create_task(keep_polling(consumer)) for consumer in (first, second)]
    try:
        async with asyncio.timeout(20):
            while (first.assigned, second.assigned) != (6, 6):
                await asyncio.sleep(0.05)
        polling[1].cancel()
        await asyncio.gather(polling[1], return_exceptions=True)
        await second.stop()
        async with asyncio.timeout(20):
            while first.assigned != 12:
                await asyncio.sleep(0.05)
        assert first.take_rebalances() >= 1
    finally:
        polling[0].cancel()
        await asyncio.gather(*polling, return_exceptions=True)
        await first.stop()


async def test_tail_shows_what_comes(producer: Producer, kafka: TestBroker) -> None:
    value = uuid.uuid4().hex.encode()
    stream = tail(kafka.bootstrap, [TOPIC])

    async def first_of_ours() -> bytes | None:
        async for message in stream:
            if message.value == value:
                return message.value
        return None

    waiting = asyncio.create_task(first_of_ours())
    try:
        async with asyncio.timeout(20):
            while not waiting.done():
                await producer.send([record(value)], 2)
                await asyncio.sleep(0.2)
        assert await waiting == value
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
