"""The running system: the way from a follow to its welcome."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import psutil
from aiokafka import AIOKafkaConsumer

from tests.bench.load import at_rate, request_bytes
from tests.bench.report import Row, cpu_seconds
from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE, System

RATE = 300
SECONDS = 20


async def measure(server: TestServer) -> list[Row]:
    """Five services in role `all`."""
    system = System(server, {"demo": {}})
    system.log_format = "json"
    try:
        await system.start()
        await asyncio.sleep(3)
        return [await _welcome(system)]
    finally:
        await system.stop()


async def _welcome(system: System) -> Row:
    """A third of the events are follows. Time from the planned instant of the request to Kafka's append of the message
    that tells the decision: so commit and relay are in it."""
    planned: dict[str, float] = {}
    began = time.time() + 0.5
    number = RATE * SECONDS

    def requests() -> Iterator[bytes]:
        for n in itertools.count():
            subject = f"douyin:welcome_{n}"
            if n % 3:
                yield _request(system, n, f"douyin:ou_{n % 500}", "like")
            else:
                planned[subject] = began + n / RATE
                yield _request(system, n, subject, "follow")

    await asyncio.sleep(began - time.time())
    cpu = _cpu(system)
    load = await at_rate(system.url("ingest"), requests(), RATE, SECONDS)
    await system.applied()
    used = {name: (seconds - cpu[name]) / number * 1e6 for name, seconds in _cpu(system).items()}
    appended = await _messages(system.broker.bootstrap)
    delays = sorted(appended[subject] - at for subject, at in planned.items() if subject in appended)
    p50, p99 = (delays[int(len(delays) * quantile)] * 1000 for quantile in (0.5, 0.99))
    spent = ", ".join(f"{name} {micro:.0f}" for name, micro in used.items())
    return Row(
        f"follow → welcome published, {load.rate:.0f} events/s one by one, {len(delays)} of {len(planned)} follows",
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms; CPU µs an event: {spent}",
        "p50 < 150 ms, p99 < 1 s",
        p50 < 150 and p99 < 1000,
    )


def _request(system: System, number: int, subject: str, kind: str) -> bytes:
    body = {
        "id": f"w{number}",
        "source": "/bench",
        "type": kind,
        "subject": subject,
        "time": datetime.now(UTC),
        "data": {} if kind == "follow" else {"content_id": "v1"},
    }
    headers = {**system.authorization("demo"), "Content-Type": "application/json"}
    return request_bytes("/v1/events", orjson.dumps(body), headers)


async def _messages(bootstrap: str) -> dict[str, float]:
    """subject → instant at which Kafka appended the welcome; of all that has been published."""
    consumer = AIOKafkaConsumer("superfan.messages", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: dict[str, float] = {}
    try:
        while batches := await consumer.getmany(timeout_ms=3000):
            for records in batches.values():
                for record in records:
                    message: dict[str, Any] = orjson.loads(record.value)
                    if message["type"] == "message.sent":
                        found[message["subject"]] = record.timestamp / 1000
    finally:
        await consumer.stop()
    return found


def _cpu(system: System) -> dict[str, float]:
    return {name: cpu_seconds(psutil.Process(system.children[name].pid)) for name in ("ingest", *WITH_DATABASE)}
