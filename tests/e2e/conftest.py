"""One whole system for the tests that can share it: each uses accounts of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.support.postgres import TestServer
from tests.support.services import System

SHANGHAI = {"zone": "Asia/Shanghai"}
BY_ACCOUNT_DAY = {"sign_in_day": "account"}
ACCOUNTS = {
    "demo": SHANGHAI,
    "fire": SHANGHAI,
    "cdnow": SHANGHAI,
    "sabotaged": SHANGHAI,
    "kuairand": SHANGHAI,
    "linked-first": SHANGHAI,
    "linked-between": SHANGHAI,
    "linked-last": SHANGHAI,
    "linked-never": SHANGHAI,
    "retail-shuffled": {"zone": "Europe/London", "currency": "GBP"},
    "tigerbeetle-shuffled": {**SHANGHAI, **BY_ACCOUNT_DAY},
    "tigerbeetle-utc-shuffled": {"zone": "UTC", **BY_ACCOUNT_DAY},
    "tigerbeetle-local-shuffled": {**SHANGHAI, "sign_in_day": "user"},
}


@pytest.fixture(scope="session")
async def system(pg_server: TestServer) -> AsyncIterator[System]:
    """Five services, a broker and four databases."""
    system = System(pg_server, ACCOUNTS)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()
