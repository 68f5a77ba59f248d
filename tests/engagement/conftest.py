"""engagement's database and API for the tests of this folder; the database is emptied before each."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from libs.common.db import Sessions
from services.engagement.main import SERVICE
from tests.engagement.support import CHANNEL_SECRET, TOML, make_log
from tests.support.folding import Log, empty
from tests.support.postgres import TestServer
from tests.support.web import client, config_file


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("engagement") as sessions:
        yield sessions


@pytest.fixture
async def sessions(database: Sessions) -> Sessions:
    await empty(database)
    return database


@pytest.fixture
def log(sessions: Sessions) -> Log:
    return make_log(sessions)


@pytest.fixture
def app(sessions: Sessions, tmp_path: Path) -> FastAPI:
    (tmp_path / "channel-secret").write_text(CHANNEL_SECRET)
    return SERVICE.build_app(config_file(tmp_path, TOML, "engagement"), sessions)


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as found:
        yield found
