"""Records on their way to one partition, so that all who wait for the same batch wait for one acknowledgement.

aiokafka's `send` costs a future and a search for the partition per record, more than all the rest of a small event.
Its `send_batch` costs them per batch, but has two traps: it waits while another batch of the partition is queued, and
counts that wait several times against its deadline. So a lane has one batch in hand at a time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata
from prometheus_client import Gauge

CLOCK_OFFSET = Gauge(
    "superfan_kafka_clock_offset_seconds",
    "How far Kafka's append time of the last batch lies before its sending (negative) or after its acknowledgement",
    ["service"],
)


class Record(NamedTuple):
    """One message to publish. `headers` are (name, value) pairs."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class NotConnectedError(Exception):
    """No connection to Kafka, or none any more."""


class Call:
    """Records that are sent together: `outcomes` in their order, and a future that ends when all are there."""

    __slots__ = ("done", "outcomes", "waiting")

    def __init__(self, count: int, unknown: Exception) -> None:
        self.outcomes: list[Exception | None] = [unknown] * count
        self.waiting = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, index: int, outcome: Exception | None) -> None:
        """The end of one record; without effect when nobody waits any more."""
        if self.done.done():
            return
        self.outcomes[index] = outcome
        self.waiting -= 1
        if not self.waiting:
            self.done.set_result(None)

    def give_up(self) -> None:
        """Leave what has no outcome as it is."""
        if not self.done.done():
            self.done.set_result(None)


class Lane:
    """The way to one partition: records that wait together share a batch, and batches go one after the other.

    Records join the batch in hand as long as aiokafka has not taken it for sending, which closes it.
    """

    def __init__(self, client: AIOKafkaProducer, topic: str, partition: int, clock_offset: Gauge) -> None:
        self._client = client
        self._clock_offset = clock_offset
        self._topic = topic
        self._partition = partition
        self._batch: BatchBuilder | None = None
        self._joined: list[tuple[Call, int]] = []
        self._behind: deque[tuple[Record, Call, int]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, record: Record, call: Call, index: int) -> None:
        """Send `record` as soon as the lane can, and tell `call` its outcome."""
        if self._behind or not self._join(record, call, index):
            self._behind.append((record, call, index))
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        """Nothing more is sent; whoever waits is told so."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        error = NotConnectedError("the producer was closed")
        for call, index in [*self._joined, *((call, index) for _, call, index in self._behind)]:
            call.settle(index, error)
        self._joined = []
        self._behind.clear()

    def _join(self, record: Record, call: Call, index: int) -> bool:
        """Whether the batch in hand could still take it."""
        if self._batch is None:
            self._batch = self._client.create_batch()
        batch = self._batch
        if batch.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers)) is None:
            return False
        self._joined.append((call, index))
        return True

    async def _run(self) -> None:
        """Publish batch after batch until nothing waits."""
        while self._batch is not None:
            error = await self._publish(self._batch)
            joined, self._joined, self._batch = self._joined, [], None
            for call, index in joined:
                call.settle(index, error)
            while self._behind:
                record, call, index = self._behind[0]
                # Not sent for callers that have gone: they may have stored it elsewhere.
                if not call.done.done() and not self._join(record, call, index):
                    break
                self._behind.popleft()
        self._task = None

    async def _publish(self, batch: BatchBuilder) -> Exception | None:
        """None when all brokers have it, else why not."""
        sent = time.time()
        try:
            acknowledged: asyncio.Future[RecordMetadata] = await self._client.send_batch(
                batch, self._topic, partition=self._partition
            )
            metadata = await acknowledged
        except Exception as error:  # of any kind: it is told to all who wait
            return error
        if metadata.timestamp > 0:  # appended by the broker's clock, as our topics are set
            self._clock_offset.set(outside(metadata.timestamp / 1000, sent, time.time()))
        return None


def outside(instant: float, begin: float, end: float) -> float:
    """How far `instant`, cut to milliseconds, lies after `end`, or (negative) before `begin`; 0 between them."""
    return max(instant - end, 0.0) or min(instant + 0.001 - begin, 0.0)


_WORDS = [Struct(f"<{count}I") for count in range(256)]


def partition_of(key: bytes, partitions: Sequence[int]) -> int:
    """The partition that every Kafka client chooses for `key`: murmur2, as in aiokafka's partitioner, but read by
    words instead of bytes. `partitions` are sorted."""
    size = len(key)
    words = size >> 2
    value = 0x9747B28C ^ size
    for word in _WORDS[words].unpack_from(key) if words < 256 else Struct(f"<{words}I").unpack_from(key):
        mixed = word * 0x5BD1E995 & 0xFFFFFFFF
        mixed = (mixed ^ mixed >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        value = value * 0x5BD1E995 & 0xFFFFFFFF ^ mixed
    if size & 3:
        value = (value ^ int.from_bytes(key[words << 2 :], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    value ^= value >> 15
    return partitions[(value & 0x7FFFFFFF) % len(partitions)]
