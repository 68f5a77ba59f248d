"""The line that stops when too much goes wrong: when, for all workers, and until somebody resumes it."""

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from libs.common.consumer import Applier, Worker
from libs.common.consumer.line import why_stop
from libs.common.consumer.offsets import StoredPositions
from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.kafka import Producer, Record
from libs.common.outbox import Relay
from tests.support.consumer_app import OPERATOR, READER, consumer_app
from tests.support.folding import NOW, Log, rows
from tests.support.kafka import TestBroker
from tests.support.web import client, problem

TOPIC = "superfan.traits"


@dataclass
class Poisoned:
    """A use case that cannot fold events whose id begins with `poison`."""

    seen: list[str] = field(default_factory=list)

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        if any(event.id.startswith("poison") for event in events):
            raise ValueError("cannot fold poison")
        self.seen += [event.id for event in events]


@pytest.fixture
def app(sessions: Sessions, tmp_path: Path) -> FastAPI:
    return consumer_app(sessions, tmp_path, (TOPIC,))


async def consumption(app: FastAPI) -> Any:
    async with client(app, READER) as http:
        return (await http.get("/v1/consumer")).json()


async def resume(app: FastAPI) -> Any:
    async with client(app, OPERATOR) as http:
        return (await http.post("/v1/consumer:resume")).json()


def traits(id: str) -> AnyEvent:  # noqa: A002
    return new_event(
        "profile.traits",
        account="demo",
        source="/line",
        id=id,
        subject="douyin:u1",
        time=NOW,
        received=NOW,
        data={"traits": {}},
    )


@pytest.mark.parametrize(
    ("recent", "among_last", "stops"),
    [(0, 0, False), (99, 99, False), (100, 0, True), (0, 100, True), (99, 100, True), (100, 100, True)],
)
def test_it_stops_at_a_hundred_in_five_minutes_or_a_tenth(recent: int, among_last: int, stops: bool) -> None:
    assert (why_stop(recent, among_last) is not None) == stops


async def test_the_batch_that_stops_it_is_kept(sessions: Sessions, app: FastAPI) -> None:
    handler = Poisoned()
    log = Log("profile", sessions, handler, lambda _: True)
    await log.apply([*(traits(f"poison{n}") for n in range(99)), traits("good0")])
    running = {"topic": TOPIC, "paused": False, "paused_at": None, "paused_by": None, "reason": None}
    assert await consumption(app) == {"stopped": False, "stopped_at": None, "reason": None, "topics": [running]}
    await log.apply([traits("poison99"), traits("good1")], now=NOW + timedelta(minutes=4))
    assert (await consumption(app))["reason"] == "100 events went to the dead letters within 5 minutes"
    assert handler.seen[-1] == "good1"
    assert await rows(sessions, "event", "id") == [("good0",), ("good1",)]
    assert len(await rows(sessions, "dead_letter", "digest")) == 100


async def test_only_an_operator_resumes_it_and_the_limits_count_anew(sessions: Sessions, app: FastAPI) -> None:
    log = Log("profile", sessions, Poisoned(), lambda _: True)
    await log.apply([traits(f"poison{n}") for n in range(100)], now=datetime.now(UTC))
    async with client(app, READER) as http:
        problem(await http.post("/v1/consumer:resume"), 403, "missing_scope")
    assert (await consumption(app))["stopped"] is True
    for _ in range(2):
        assert (await resume(app))["stopped"] is False
    await log.apply([traits("poison100")], now=datetime.now(UTC))
    assert (await consumption(app))["stopped"] is False
    assert await rows(sessions, "consumer_stop", "resumed_by") == [("demo/operator",)]


@pytest.mark.parametrize(("good", "stops"), [(9, True), (10, False)])
async def test_a_tenth_of_the_last_thousand_stops_it_however_slowly(
    sessions: Sessions, app: FastAPI, good: int, stops: bool
) -> None:
    log = Log("profile", sessions, Poisoned(), lambda _: True)
    for n in range(100):
        batch = [traits(f"poison{n}"), *(traits(f"good{n}-{i}") for i in range(good if n else 0))]
        await log.apply(batch, partition=n % 3, now=NOW + timedelta(minutes=6 * n))
    stop = await consumption(app)
    assert stop["stopped"] is stops
    assert stop["reason"] == ("10% of the last 1,000 events went to the dead letters" if stops else None)


async def test_the_same_letters_again_are_not_new_ones(sessions: Sessions, app: FastAPI) -> None:
    log = Log("profile", sessions, Poisoned(), lambda _: True)
    for _ in range(3):
        await log.apply([traits(f"poison{n}") for n in range(60)])
    assert (await consumption(app))["stopped"] is False


async def test_all_workers_stop_and_go_on_when_it_is_resumed(
    kafka: TestBroker, sessions: Sessions, app: FastAPI
) -> None:
    """Two workers of one service on a real broker: both hold, keep their membership, and lose nothing."""
    name = f"profile-{uuid.uuid4().hex[:8]}"
    mark = uuid.uuid4().hex[:8]
    producer = Producer(kafka.bootstrap, "test")
    handlers = [Poisoned(), Poisoned()]
    appliers = [Applier(name, sessions, handler, lambda _: False) for handler in handlers]
    workers = [
        Worker(
            name,
            kafka.bootstrap,
            [TOPIC],
            applier=applier,
            positions=StoredPositions(name, sessions),
            relay=Relay(name, sessions, producer),
        )
        for applier in appliers
    ]

    async def send(ids: list[str]) -> None:
        now = datetime.now(UTC)
        events = [
            new_event(
                "profile.traits",
                account="demo",
                source="/line",
                id=id,
                subject=f"douyin:{mark}-{n}",
                time=now,
                received=now,
                data={"traits": {}},
            )
            for n, id in enumerate(ids)  # noqa: A001
        ]
        assert set(await producer.send([Record(e.topic, e.key, e.to_json()) for e in events], 10)) == {None}

    def seen() -> set[str]:
        return {*handlers[0].seen, *handlers[1].seen}

    def rebuilds() -> float | None:
        return REGISTRY.get_sample_value("superfan_consumer_rebuilds_total", {"service": name, "topic": TOPIC})

    async def until(condition: Any) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.05)

    assert all(applier.line.stop_notice() and applier.line.holds(TOPIC) for applier in appliers), "unknown is held"
    await producer.start()
    try:
        for worker in workers:
            await worker.start()
        await until(lambda: not any(worker.unready() for worker in workers))
        assert all(applier.line.stop_notice() is None for applier in appliers)

        await send([f"poison-{mark}-{n}" for n in range(130)])
        await until(lambda: all(applier.line.holds(TOPIC) for applier in appliers))
        reason = (await consumption(app))["reason"]
        assert all(reason in (applier.line.stop_notice() or "") for applier in appliers)
        assert REGISTRY.get_sample_value("superfan_consumer_stopped", {"service": name}) == 1
        await until(lambda: (REGISTRY.get_sample_value("superfan_dead_letters_waiting", {"service": name}) or 0) >= 100)
        assert len(await rows(sessions, "dead_letter", "digest")) >= 100

        held = [f"held-{mark}-{n}" for n in range(50)]
        await send(held)
        await asyncio.sleep(2)
        assert not seen() & set(held)
        assert not any(worker.unready() or worker.stuck() for worker in workers)
        assert not rebuilds()

        assert (await resume(app))["stopped"] is False
        await until(lambda: set(held) <= seen())
        await until(lambda: not any(applier.line.stop_notice() for applier in appliers))
        assert REGISTRY.get_sample_value("superfan_consumer_stopped", {"service": name}) == 0
        async with asyncio.timeout(60):
            while len(await rows(sessions, "dead_letter", "digest")) < 130:
                await asyncio.sleep(0.05)
    finally:
        for worker in workers:
            await worker.stop()
        await producer.stop()
