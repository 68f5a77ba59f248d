"""Lag and `--wait` against real offsets: Kafka's ends on one side, the services' tables on the other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from libs.cli.local.lag import LagReader, consumed_topics
from libs.cli.local.processes import LaunchError
from libs.cli.local.state import WITH_DATABASE
from libs.common.events import TOPICS
from libs.common.kafka import Producer, Record
from tests.support.kafka import TestBroker

Databases = Callable[[str], Awaitable[str]]


async def execute(url: str, statement: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def catch_up(reader: LagReader, run: dict[str, Any], broker: TestBroker) -> None:
    """Writes what a service writes that has applied everything."""
    ends = (await reader.log())[1]
    cluster = await broker.cluster_id()
    for service, url in run["postgres"].items():
        topics = consumed_topics(service)
        connection = await asyncpg.connect(url)
        try:
            await connection.executemany(
                "insert into consumer_offset values ($1, $2, $3, $4)"
                " on conflict (cluster_id, topic, partition) do update set next_offset = excluded.next_offset",
                [(cluster, topic, partition, end) for (topic, partition), end in ends.items() if topic in topics],
            )
        finally:
            await connection.close()


@pytest.fixture
async def run(kafka: TestBroker, service_database: Databases) -> dict[str, Any]:
    return {"kafka": kafka.bootstrap, "postgres": {name: await service_database(name) for name in WITH_DATABASE}}


async def publish(broker: TestBroker, topic: str, count: int) -> None:
    producer = Producer(broker.bootstrap, "test-lag")
    await producer.start()
    try:
        records = [Record(topic, f"demo/x:{number}".encode(), b"{}") for number in range(count)]
        assert await producer.send(records, timeout=10) == [None] * count
    finally:
        await producer.stop()


async def test_lag_counts_records_and_outbox_rows(run: dict[str, Any], kafka: TestBroker) -> None:
    reader = LagReader(run)
    await catch_up(reader, run, kafka)
    assert [lag.total for lag in await reader.read((await reader.log())[1])] == [0, 0, 0, 0]

    await publish(kafka, "superfan.follows", 5)
    await execute(run["postgres"]["rewards"], "insert into outbox (topic, key, value) values ('t', '', '')")
    lags = {lag.service: lag for lag in await reader.read((await reader.log())[1])}
    for service in WITH_DATABASE:
        assert lags[service].behind["superfan.follows"] == (5 if "superfan.follows" in consumed_topics(service) else 0)
    assert lags["rewards"].outbox == 1


async def test_wait_returns_only_when_all_is_applied_and_published(run: dict[str, Any], kafka: TestBroker) -> None:
    reader = LagReader(run)
    await publish(kafka, "superfan.follows", 3)
    with pytest.raises(LaunchError, match="not done after"):
        await reader.wait(0.5)
    waiting = asyncio.create_task(reader.wait(60))
    await execute(run["postgres"]["profile"], "insert into outbox (topic, key, value) values ('t', '', '')")
    await catch_up(reader, run, kafka)
    done, _ = await asyncio.wait([waiting], timeout=1)
    assert not done
    await execute(run["postgres"]["profile"], "delete from outbox")
    await waiting


async def test_what_retention_removed_is_nobodys_lag(run: dict[str, Any], kafka: TestBroker) -> None:
    """Neither for a service that has no position yet, nor for one that stood before what was removed."""
    reader = LagReader(run)
    await catch_up(reader, run, kafka)
    stood = (await reader.log())[1]
    await publish(kafka, "superfan.follows", 60)
    ends = (await reader.log())[1]
    await execute(run["postgres"]["rewards"], "delete from consumer_offset")
    grown = [key for key, end in ends.items() if end > stood[key]]
    await kafka.delete_records({key: ends[key] - 1 for key in grown})
    begins, ends = await reader.log()
    lags = {lag.service: lag.behind["superfan.follows"] for lag in await reader.read(ends, begins)}
    assert lags["profile"] == len(grown) > 1
    assert lags["rewards"] == sum(ends[key] - begins[key] for key in ends if key[0] == "superfan.follows")
    await kafka.delete_records({key: ends[key] for key in grown})
    begins, ends = await reader.log()
    assert {lag.service: lag.behind["superfan.follows"] for lag in await reader.read(ends, begins)}["profile"] == 0


async def test_wait_waits_for_the_spool(run: dict[str, Any], kafka: TestBroker) -> None:
    registry = CollectorRegistry()
    spool = Gauge("superfan_spool_events", "As ingest tells it", ["service"], registry=registry).labels("ingest")
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        run["services"] = {"ingest": {"metrics": f"http://127.0.0.1:{server.server_port}"}}
        reader = LagReader(run)
        await catch_up(reader, run, kafka)
        spool.set(3)
        assert await reader.spooled() == 3
        with pytest.raises(LaunchError, match="ingest's spool 3"):
            await reader.wait(0)
        spool.set(0)
        await reader.wait(60)
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
    assert await reader.spooled() is None
    with pytest.raises(LaunchError, match="ingest's spool unknown"):
        await reader.wait(0)


async def test_a_broker_that_is_just_starting_is_waited_for(
    run: dict[str, Any], kafka: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.kafka.admin.PATIENT_SECONDS", 120)
    reader = LagReader(run)
    before = await reader.log()
    await kafka.stop()
    reading = asyncio.create_task(reader.log())
    try:
        await asyncio.sleep(0.5)
        assert not reading.done()
    finally:
        await kafka.start()
    assert await reading == before


async def test_offsets_of_another_cluster_do_not_count(run: dict[str, Any], kafka: TestBroker) -> None:
    reader = LagReader(run)
    await publish(kafka, "superfan.follows", 2)
    await catch_up(reader, run, kafka)
    await execute(run["postgres"]["profile"], "update consumer_offset set cluster_id = 'another'")
    lags = {lag.service: lag.total for lag in await reader.read((await reader.log())[1])}
    assert lags["profile"] >= 2
    assert lags["rewards"] == 0


def test_services_read_only_declared_topics() -> None:
    declared = {topic.name for topic in TOPICS}
    for service in WITH_DATABASE:
        assert set(consumed_topics(service)) <= declared
