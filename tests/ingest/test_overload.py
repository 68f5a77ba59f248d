"""A real ingest process that is sent far more than it takes: it refuses, it stays small, it recovers."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import orjson
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.load import connect, request_bytes
from tests.support.postgres import TestServer
from tests.support.services import System

HELD = 8
CONNECTIONS = 5 * HELD
ROUND_SECONDS = 2.0
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
async def ingest(pg_server: TestServer) -> AsyncIterator[System]:
    system = System(pg_server, {"demo": {}, "slow": {}})
    system.env["SUPERFAN_INGEST_MAX_IN_FLIGHT"] = str(HELD)
    system.key_rates = {"demo": 1_000_000, "slow": 20}
    try:
        await system.start(["ingest"])
        yield system
    finally:
        await system.stop()


def batch(system: System, account: str, events: int) -> bytes:
    body = [
        {"id": f"o-{n}", "source": "/overload", "type": "like", "user": f"u{n}", "data": {"content_id": "c" * 100}}
        for n in range(events)
    ]
    headers = {**system.authorization(account), "Content-Type": "application/json"}
    return request_bytes("/v1/events", orjson.dumps(body), headers)


async def hammer(system: System, raw: bytes) -> Counter[int]:
    """Forty senders that never pause; how often each status came back."""
    statuses: Counter[int] = Counter()
    pool = await connect(system.url("ingest"), CONNECTIONS)
    end = time.monotonic() + ROUND_SECONDS

    async def send(index: int) -> None:
        while time.monotonic() < end:
            statuses[await pool[index].request(raw)] += 1

    await asyncio.gather(*map(send, range(CONNECTIONS)))
    for connection in pool:
        connection.close()
    return statuses


async def metric(system: System, name: str) -> float:
    answer = await system.http.get(f"{system.metrics_url('ingest')}/metrics", headers={"Accept": "text/plain"})
    samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples if s.name == name]
    return sum(sample.value for sample in samples)


async def test_five_times_what_it_holds_is_shed_and_memory_stays_flat(ingest: System) -> None:
    raw = batch(ingest, "demo", 200)
    process = psutil.Process(ingest.children["ingest"].pid)
    sizes, total = [], Counter[int]()
    for _ in range(4):
        total += await hammer(ingest, raw)
        sizes.append(process.memory_info().rss)
        alive = await ingest.http.get(f"{ingest.metrics_url('ingest')}/livez")
        assert alive.status_code == 200
    print(f"\n{dict(total)}, memory after each round: {[size // MEBIBYTE for size in sizes]} MiB")
    assert total.keys() == {202, 503}
    assert total[202] > HELD
    assert total[503] > CONNECTIONS
    shed = await metric(ingest, "superfan_http_shed_total")
    assert 0 < shed <= total[503]  # the rest, if any, waited too long for Kafka
    assert max(sizes[1:]) - sizes[0] < 48 * MEBIBYTE
    assert await metric(ingest, "superfan_http_in_flight") == 0
    after = await ingest.http.post(
        ingest.url("ingest", "/v1/events"),
        json=[{"type": "follow", "user": "u1", "id": "after"}],
        headers=ingest.authorization("demo"),
    )
    assert (after.status_code, after.json()["accepted"]) == (202, 1)


async def test_one_key_beyond_its_rate_does_not_hinder_another(ingest: System) -> None:
    raw = batch(ingest, "slow", 1)
    began = time.monotonic()
    hammering = asyncio.create_task(hammer(ingest, raw))
    others: Counter[int] = Counter()
    while not hammering.done():
        answer = await ingest.http.get(ingest.url("ingest", "/v1/event-types"), headers=ingest.authorization("demo"))
        others[answer.status_code] += 1
        assert "ratelimit" in answer.headers or answer.json()["code"] == "overloaded"
    statuses = await hammering
    assert statuses.keys() <= {202, 429, 503}
    assert 0 < statuses[202] <= 40 + 20 * (time.monotonic() - began)  # the burst and the rate
    assert statuses[429] > statuses[202]
    assert others[200] > 0
    assert 429 not in others
