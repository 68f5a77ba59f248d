"""Fixtures for all tests. Servers start only when a test asks for one, on free ports, and go with the run."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import structlog

from libs.common.migrate import upgrade
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Settings of the person who runs the tests must not reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SUPERFAN_", "OTEL_"))]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> Iterator[None]:
    """structlog's own default prints the local variables of every frame, which takes seconds per trace."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, renderer])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
async def pg_server() -> AsyncIterator[TestServer]:
    """A PostgreSQL server of its own (fsync off)."""
    server = TestServer()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def pg_url(pg_server: TestServer) -> AsyncIterator[str]:
    """The address of a fresh, empty database."""
    url = await pg_server.create_database()
    yield url
    await pg_server.drop_database(url)


@pytest.fixture(scope="session")
async def service_templates() -> dict[str, str]:
    """Names of databases that are migrated already, by service."""
    return {}


@pytest.fixture
async def service_database(
    pg_server: TestServer, service_templates: dict[str, str]
) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """`await service_database("profile")`: the address of a fresh database with that service's tables."""
    urls = []

    async def make(service: str) -> str:
        if service not in service_templates:
            url = await pg_server.create_database()
            await upgrade(url, service)
            service_templates[service] = url.rpartition("/")[2]
        urls.append(await pg_server.create_database(template=service_templates[service]))
        return urls[-1]

    yield make
    for url in urls:
        await pg_server.drop_database(url)


@pytest.fixture(scope="session")
async def kafka() -> AsyncIterator[TestBroker]:
    """A Kafka broker with all topics. A test that stops it starts it again."""
    broker = TestBroker()
    await broker.start()
    yield broker
    await broker.close()
