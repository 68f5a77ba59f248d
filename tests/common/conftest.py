"""What the tests of Kafka, outbox and consumers share."""

from collections.abc import AsyncIterator

import pytest

from libs.common.db import Sessions
from libs.common.kafka import Producer
from tests.support.folding import empty
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer


@pytest.fixture
async def producer(kafka: TestBroker) -> AsyncIterator[Producer]:
    producer = Producer(kafka.bootstrap, "test")
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


@pytest.fixture
async def sessions(database: Sessions) -> Sessions:
    await empty(database)
    return database
