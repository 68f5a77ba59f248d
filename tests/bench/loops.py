"""The usual ways to write a consumer, on a real Kafka with the defaults of their libraries: one transaction an event.

Each is a context in which its consumer runs: what it reads from the topic goes to `apply`, one event after another.
"""

import asyncio
import contextlib
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import NewTopic
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from libs.common.events import AnyEvent, parse_event
from libs.common.kafka.admin import admin_client
from tests.bench.peers import raw_producer

Apply = Callable[[AnyEvent], Awaitable[None]]
Way = Callable[[str, str, Apply], AbstractAsyncContextManager[None]]
"""(bootstrap, topic, apply) → the context."""


async def fill(bootstrap: str, topic: str, values: Sequence[bytes]) -> None:
    """Make `topic` with these values, in one partition."""
    async with admin_client(bootstrap) as admin:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    producer = raw_producer(bootstrap)
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(topic, value) for value in values])
    finally:
        await producer.stop()


@asynccontextmanager
async def plain(bootstrap: str, topic: str, apply: Apply) -> AsyncIterator[None]:
    """aiokafka, which commits offsets by itself now and then."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=f"plain-{uuid4()}", auto_offset_reset="earliest"
    )

    async def loop() -> None:
        async for record in consumer:
            await apply(parse_event(record.value or b""))

    await consumer.start()
    running = asyncio.create_task(loop())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await consumer.stop()


@asynccontextmanager
async def faststream(bootstrap: str, topic: str, apply: Apply) -> AsyncIterator[None]:
    """FastStream, at least once: it commits the offset after each event. Its two log lines an event are formatted and
    thrown away."""
    broker = KafkaBroker(bootstrap)

    @broker.subscriber(
        topic,
        group_id=f"faststream-{uuid4()}",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def handle(event: AnyEvent) -> None:
        await apply(event)

    try:
        with contextlib.redirect_stdout(_Nowhere()):
            await broker.start()
        yield
    finally:
        await broker.stop()
        log = logging.getLogger("faststream.access.kafka")  # each broker adds to it
        log.handlers.clear()
        log.filters.clear()


class _Nowhere(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)
