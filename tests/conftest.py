"""Fixtures for all tests. Servers start only when a test asks for one, on free ports, and go with the run."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.postgres import TestServer


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Settings of the person who runs the tests must not reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SUPERFAN_")]:
            patch.delenv(name)
        yield


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
