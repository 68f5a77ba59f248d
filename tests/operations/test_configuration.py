"""superfan.toml changes under real processes: what is wrong changes nothing, and what is right holds everywhere."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.operations.configuration import FIRST, accepts, declare, digests, put, rotate
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer
from tests.support.services import SERVICES, WITH_DATABASE, System

ACCOUNT = "demo"


@pytest.fixture
async def apis(pg_server: TestServer, service_database: Callable[[str], Awaitable[str]]) -> AsyncIterator[System]:
    """The five APIs, which look at their configuration every second; Kafka is down."""
    system = System(pg_server, {ACCOUNT: {"zone": "Asia/Shanghai"}}, TestBroker())
    system.write_config()
    system.program = ("tests.operations.polling", "1")
    try:
        for service in SERVICES:
            if service in WITH_DATABASE:
                system.databases[service] = await service_database(service)
            await system.spawn(service, "api")
        await system.wait_ready(SERVICES[1:])
        yield system
    finally:
        await system.stop()


async def test_keys_are_rotated_and_a_wrong_file_changes_nothing(apis: System) -> None:
    other = apis.folder / "other"
    other.mkdir()
    text = (apis.folder / "superfan.toml").read_text()
    for name in ("douyin", "standard"):
        (other / name).write_text((apis.folder / name).read_text())
    put(other / "superfan.toml", text + declare(ACCOUNT, FIRST))
    apis.env = {"SUPERFAN_CONFIG": str(other / "superfan.toml")}
    await apis.spawn("profile", "api", "profile-other")
    await apis.wait_ready(["profile-other"])
    # Two processes of one service with different files are seen by their hashes.
    assert len(await digests(apis, "profile") | await digests(apis, "profile-other")) == 2
    assert await accepts(apis, "profile-other", FIRST)
    assert not await accepts(apis, "profile", FIRST)

    await rotate(apis, SERVICES, ACCOUNT, print)
