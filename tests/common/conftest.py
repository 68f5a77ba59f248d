"""What the tests of Kafka, outbox and worker share."""

from collections.abc import AsyncIterator

import pytest

from libs.common.kafka import Producer
from tests.support.kafka import TestBroker


@pytest.fixture
async def producer(kafka: TestBroker) -> AsyncIterator[Producer]:
    producer = Producer(kafka.bootstrap, "test")
    await producer.start()
    yield producer
    await producer.stop()
