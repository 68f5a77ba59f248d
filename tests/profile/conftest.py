"""A migrated database of profile, and its API, for the tests of profile."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from libs.common.config import SCOPES, ConfigFile, hash_key, make_key
from libs.common.db import Sessions
from services.profile.main import SERVICE
from tests.support.folding import Log, empty
from tests.support.postgres import TestServer

KEY = make_key("test", "secret")
TOML = f"""
[accounts.demo]
[accounts.london]
zone = "Europe/London"
sign_in_day = "account"

[[keys]]
id = "test"
account = "demo"
sha256 = "{hash_key(KEY)}"
scopes = {list(SCOPES)}
"""


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


@pytest.fixture
async def sessions(database: Sessions) -> Sessions:
    await empty(database)
    return database


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    file: Path = tmp_path_factory.mktemp("profile") / "superfan.toml"
    file.write_text(TOML)
    return ConfigFile(file, "profile")


@pytest.fixture
def log(sessions: Sessions, config: ConfigFile) -> Log:
    return Log("profile", sessions, SERVICE.make_handler(config.account), SERVICE.keep_data)


@pytest.fixture
def app(sessions: Sessions, config: ConfigFile) -> FastAPI:
    return SERVICE.build_app(config, sessions)


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        yield client
