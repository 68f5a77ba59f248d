"""engagement's database and API for the tests of this folder; the database is emptied before each."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from libs.common.db import Sessions, make_engine, make_sessions
from libs.common.migrate import upgrade
from services.engagement.main import SERVICE
from tests.engagement.support import TOML, make_log
from tests.support.folding import Log, empty
from tests.support.postgres import TestServer
from tests.support.web import client, config_file


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    url = await pg_server.create_database()
    await upgrade(url, "engagement")
    engine = make_engine(url, 10)
    yield make_sessions(engine)
    await engine.dispose()
    await pg_server.drop_database(url)


@pytest.fixture
async def sessions(database: Sessions) -> Sessions:
    await empty(database)
    return database


@pytest.fixture
def log(sessions: Sessions) -> Log:
    return make_log(sessions)


@pytest.fixture
def app(sessions: Sessions, tmp_path: Path) -> FastAPI:
    return SERVICE.build_app(config_file(tmp_path, TOML, "engagement"), sessions)


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as found:
        yield found
