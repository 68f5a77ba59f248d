"""What aiokafka does when it is used as its documentation shows, and what the wrapper makes of it, on a real broker.

docs/reliability.md lists all known traps; this file has those that no other test brings about.
"""

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, NewTopic

from libs.common.kafka import Batch, Consumer, Producer, Record, end_offsets, is_refusal
from libs.common.kafka.admin import admin_client
from tests.common.test_kafka import TOPIC, Stored, consumer_of, no_work, poll_until, record
from tests.support.kafka import TestBroker


def new_name(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


async def make_topic(kafka: TestBroker, partitions: int, **settings: str) -> str:
    name = new_name("trap")
    configs = {key.replace("_", "."): value for key, value in settings.items()}
    async with admin_client(kafka.bootstrap) as admin:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
    return name


async def until_stored(producer: Producer, records: list[Record]) -> None:
    """A topic that has just been made has no leader at first."""
    async with asyncio.timeout(30):
        while any(outcome is not None for outcome in await producer.send(records[:1], 2)):
            await asyncio.sleep(0.1)
        if len(records) > 1:
            assert await producer.send(records[1:], 10) == [None] * (len(records) - 1)


async def until_read(consumer: Consumer, records: list[Record]) -> set[int]:
    """The partitions that all of `records` were read from; an attempt that seemed to fail may have left copies."""
    missing = {one.value for one in records}
    partitions = set()
    async with asyncio.timeout(40):
        while missing:
            for batch in await consumer.poll(500, 0.2):
                if found := missing & {message.value for message in batch.records}:
                    missing -= found
                    partitions.add(batch.partition)
    return partitions


async def end_of(kafka: TestBroker, topic: str = TOPIC) -> int:
    return sum((await end_offsets(kafka.bootstrap, [topic])).values())


@pytest.fixture
async def frozen(kafka: TestBroker) -> AsyncIterator[TestBroker]:
    """A broker that may be left frozen."""
    yield kafka
    kafka.thaw()


class SlowCallback(Consumer):
    """Its assignment callback takes a second, during which polls go on."""

    inside = False
    polled_inside = 0

    async def on_partitions_assigned(self, _assigned: Iterable[TopicPartition]) -> None:
        self.inside = True
        await asyncio.sleep(1)
        self.inside = False

    async def poll(self, max_records: int, wait_seconds: float) -> list[Batch]:
        batches = await super().poll(max_records, wait_seconds)
        self.polled_inside += self.inside and bool(batches)
        return batches


async def test_a1_records_may_come_before_the_assignment_callback_has_ended(
    producer: Producer, kafka: TestBroker
) -> None:
    """Whatever comes when, what is applied is a chain from the stored positions on: nothing twice, nothing left out."""
    begin = await end_offsets(kafka.bootstrap, [TOPIC])
    stored = Stored(dict(begin))
    applied: Counter[tuple[int, int]] = Counter()
    group = new_name("test")
    members = [
        SlowCallback(kafka.bootstrap, group, TOPIC, client_id="test", positions=stored, drain=no_work) for _ in range(2)
    ]

    async def work(member: Consumer) -> None:
        while True:
            for batch in await member.poll(20, 0.1):
                place = (batch.topic, batch.partition)
                if stored.positions[place] != batch.position:  # as the database's compare-and-set refuses it
                    member.forget(batch)
                    continue
                stored.positions[place] = batch.next_offset
                applied.update((batch.partition, message.offset) for message in batch.records)

    assert await producer.send([record(b"v", b"%d" % n) for n in range(600)], 10) == [None] * 600
    tasks = []
    try:
        for member in members:
            await member.start()
            tasks.append(asyncio.create_task(work(member)))
            assert await producer.send([record(b"v", b"%d" % n) for n in range(600)], 10) == [None] * 600
        end = await end_offsets(kafka.bootstrap, [TOPIC])
        async with asyncio.timeout(40):
            while stored.positions != end or not all(member.assigned for member in members):
                await asyncio.sleep(0.05)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(member.stop() for member in members))
    assert sum(member.polled_inside for member in members) > 0, "the trap is gone: the callback holds polls up now"
    assert applied == Counter(
        (partition, offset) for (_, partition), last in end.items() for offset in range(begin[TOPIC, partition], last)
    )


async def test_a2_a6_without_an_answer_it_is_unknown_and_neither_send_nor_stop_hangs(frozen: TestBroker) -> None:
    producer = Producer(frozen.bootstrap, "test")
    await producer.start()
    before = await end_of(frozen)
    assert await producer.send([record()], 5) == [None]
    frozen.freeze()
    (outcome,) = await asyncio.wait_for(producer.send([record()], 0.5), 10)
    assert isinstance(outcome, TimeoutError)
    frozen.thaw()
    async with asyncio.timeout(20):
        while await end_of(frozen) < before + 2:  # it landed: whoever is told "unknown" and repeats it makes a copy
            await asyncio.sleep(0.1)
    frozen.freeze()
    assert isinstance((await producer.send([record()], 0.5))[0], TimeoutError)
    await asyncio.wait_for(producer.stop(), 20)


async def test_a3_b6_what_the_broker_refuses_spoils_nothing_else(producer: Producer, kafka: TestBroker) -> None:
    topic = await make_topic(kafka, 3, max_message_bytes="2000")
    keys = [b"a", b"b", b"c", b"d", b"e", b"f"]
    await until_stored(producer, [record(b"small", key, topic) for key in keys])
    for _ in range(2):
        (refused,) = await producer.send([record(os.urandom(5000), b"a", topic)], 10)
        assert refused is not None
        assert is_refusal(refused)
        assert await producer.send([record(b"small", key, topic) for key in keys], 10) == [None] * len(keys)
    assert await end_of(kafka, topic) == 3 * len(keys)


async def test_a5_a7_a_member_leaves_while_the_group_waits_for_another(kafka: TestBroker) -> None:
    """A poll in a rebalance ignores its time-out and lasts as long as the slowest member: it is given up."""
    stored = Stored(dict(await end_offsets(kafka.bootstrap, [TOPIC])))
    group = new_name("test")
    may_go = asyncio.Event()
    may_go.set()

    async def hold() -> None:
        await may_go.wait()

    first = consumer_of(kafka, stored, group)
    slow = Consumer(kafka.bootstrap, group, TOPIC, client_id="test", positions=stored, drain=hold)
    third = consumer_of(kafka, stored, group)
    polling: dict[Consumer, asyncio.Task[None]] = {}

    async def keep_polling(member: Consumer) -> None:
        while True:
            await member.poll(500, 0.1)

    async def join(member: Consumer) -> None:
        await member.start()
        polling[member] = asyncio.create_task(keep_polling(member))

    try:
        await join(first)
        await join(slow)
        async with asyncio.timeout(20):
            while (first.assigned, slow.assigned) != (6, 6):
                await asyncio.sleep(0.05)
        first.take_rebalances()
        may_go.clear()
        joining = asyncio.create_task(join(third))
        async with asyncio.timeout(20):
            while not first.take_rebalances():
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        polling[first].cancel()
        await asyncio.wait({polling[first]}, timeout=5)
        assert polling[first].done()
        await asyncio.wait_for(first.stop(), 15)
        may_go.set()
        async with asyncio.timeout(40):
            await joining
            while slow.assigned + third.assigned != 12:
                await asyncio.sleep(0.05)
    finally:
        may_go.set()
        for task in polling.values():
            task.cancel()
        await asyncio.gather(*polling.values(), return_exceptions=True)
        await asyncio.gather(slow.stop(), third.stop())


async def test_b4_what_kafka_keeps_as_committed_decides_nothing(producer: Producer, frozen: TestBroker) -> None:
    await producer.send([record(b"v", b"one key") for _ in range(20)], 5)
    ends = await end_offsets(frozen.bootstrap, [TOPIC])
    place = max(ends, key=lambda key: ends[key])
    group = new_name("test")
    stored = Stored({**ends, place: ends[place] - 5})
    for wrong in (0, ends[place] + 1000):
        consumer = consumer_of(frozen, stored, group)
        await consumer.start()
        try:
            (batch,) = await poll_until(consumer, 5)
            assert (batch.position, len(batch.records)) == (ends[place] - 5, 5)
            await consumer.commit({(TOPIC, 99): 1, ("another", 0): 1})
            await consumer.commit({place: wrong})
        finally:
            await consumer.stop()
    consumer = consumer_of(frozen, stored, group)
    await consumer.start()
    try:
        assert (await poll_until(consumer, 5))[0].position == ends[place] - 5
        frozen.freeze()
        await asyncio.wait_for(consumer.commit({place: ends[place]}), 15)
    finally:
        frozen.thaw()
        await consumer.stop()


async def test_b5_a_topic_that_comes_later_and_one_that_grows_are_read_from_the_start(
    producer: Producer, kafka: TestBroker
) -> None:
    topic = new_name("later")
    (outcome,) = await producer.send([record(topic=topic)], 1)
    assert outcome is not None
    consumer = Consumer(kafka.bootstrap, new_name("test"), topic, client_id="test", positions=Stored({}), drain=no_work)
    starting = asyncio.create_task(consumer.start())
    second = Producer(kafka.bootstrap, "test")
    try:
        await asyncio.sleep(1)
        assert not starting.done()
        async with admin_client(kafka.bootstrap) as admin:
            await admin.create_topics([NewTopic(topic, 1, 1)])
        first = [record(b"first %d" % n, b"%d" % n, topic) for n in range(10)]
        await until_stored(producer, first)
        await starting
        await until_read(consumer, first)

        async with admin_client(kafka.bootstrap) as admin:
            await admin.create_partitions({topic: NewPartitions(4)})
        async with asyncio.timeout(20):
            while len(await end_offsets(kafka.bootstrap, [topic])) < 4:
                await asyncio.sleep(0.1)
        await second.start()  # knows them all at once
        later = [record(b"later %d" % n, b"%d" % n, topic) for n in range(40)]
        await until_stored(second, later)
        consumer._client._client.force_metadata_update()  # else it would take ten seconds
        assert await until_read(consumer, later) == {0, 1, 2, 3}
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await second.stop()
        await consumer.stop()
