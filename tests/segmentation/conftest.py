"""segmentation's database for the tests of this folder, emptied before each."""

from collections.abc import AsyncIterator
from zoneinfo import ZoneInfo

import pytest

from libs.common.config import Account, UnknownAccountError
from libs.common.db import Sessions
from services.segmentation.consumer import keep_data, make_handler
from tests.support.folding import Log, empty
from tests.support.postgres import TestServer

ACCOUNTS = {
    name: Account(name, ZoneInfo(zone), "CNY", name, "user")
    for name, zone in {"demo": "Asia/Shanghai", "utc": "UTC", "kuairand": "Asia/Shanghai"}.items()
}


def account_of(name: str) -> Account:
    if name not in ACCOUNTS:
        raise UnknownAccountError(name)
    return ACCOUNTS[name]


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("segmentation") as sessions:
        yield sessions


@pytest.fixture
async def sessions(database: Sessions) -> Sessions:
    await empty(database)
    return database


@pytest.fixture
def log(sessions: Sessions) -> Log:
    return Log("segmentation", sessions, make_handler(account_of), keep_data)
