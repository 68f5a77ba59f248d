"""A real ingest process while Kafka is dead or frozen, and killed itself: every 202 reaches Kafka."""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from libs.cli.local.processes import Child, free_ports
from libs.cli.main import app
from libs.common.config import ConfigFile
from services.ingest.spool.file import scan
from tests.ingest.conftest import KEY, TOML, Published
from tests.support.kafka import TestBroker


class Ingest:
    """One process; `start` after `kill` uses the same spool."""

    def __init__(self, folder: Path, bootstrap: str, **settings: str) -> None:
        self.spool = folder / "spool"
        self._folder = folder
        self._http_port, self._metrics_port = free_ports(2)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SUPERFAN_")},
            "SUPERFAN_CONFIG": str(folder / "superfan.toml"),
            "SUPERFAN_KAFKA": bootstrap,
            "SUPERFAN_LOG_LEVEL": "warning",
            "SUPERFAN_INGEST_HTTP_PORT": str(self._http_port),
            "SUPERFAN_INGEST_METRICS_PORT": str(self._metrics_port),
            "SUPERFAN_INGEST_SPOOL": str(self.spool),
            **{f"SUPERFAN_INGEST_{name}": value for name, value in settings.items()},
        }
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._http_port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=30,  # whatever takes longer hangs
            trust_env=False,
        )
        self.child: Child | None = None
        self.accepted: set[str] = set()
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def start(self) -> None:
        command = [sys.executable, "-m", "services.ingest", "all"]
        self.child = Child.spawn(
            "ingest", command, log=self._folder / "ingest.log", env=self.env, cwd=Path(__file__).parents[2]
        )
        async with asyncio.timeout(180):
            while not await self.ready():
                self.child.check()
                await asyncio.sleep(0.05)

    async def ready(self) -> bool:
        try:
            answer = await self.http.get(f"http://127.0.0.1:{self._metrics_port}/readyz")
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    async def metric(self, name: str) -> float:
        text = (await self.http.get(f"http://127.0.0.1:{self._metrics_port}/metrics")).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return next(sample.value for sample in samples if sample.name == name)

    async def send(self, number: int, size: int = 20) -> int:
        """One event; remembers its id when it was accepted."""
        name = f"e{number}"
        body = {"type": "comment", "id": name, "user": f"u{number % 50}", "data": _comment(name, size)}
        began = time.perf_counter()
        response = await self.http.post("/v1/events", json=body)
        self.seconds.append(time.perf_counter() - began)
        self.statuses[response.status_code] += 1
        if response.status_code == 202:
            self.accepted.add(name)
        elif response.status_code == 503:
            assert response.headers["retry-after"]
            assert response.json()["code"] == "not_stored"
        return response.status_code

    async def send_many(self, first: int, count: int, pause: float = 0.01) -> None:
        """An event every `pause` seconds, whatever becomes of those before."""
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + count):
                group.create_task(self.send(number))
                await asyncio.sleep(pause)

    def report(self, what: str) -> None:
        seconds = sorted(self.seconds)
        p50, p999 = (seconds[min(len(seconds) - 1, int(share * len(seconds)))] for share in (0.5, 0.999))
        print(f"{what}: {len(seconds)} requests, p50 {p50:.3f} s, p99.9 {p999:.3f} s, {dict(self.statuses)}")

    async def kill(self) -> None:
        assert self.child is not None
        await self.child.kill()

    async def close(self) -> None:
        await self.http.aclose()
        if self.child is not None:
            await self.child.stop()


def _comment(name: str, size: int) -> dict[str, str]:
    return {"content_id": "c", "comment_id": name, "text": "x" * size}


@pytest.fixture
def folder(tmp_path: Path, config: ConfigFile) -> Path:
    (tmp_path / "superfan.toml").write_text(TOML)
    for name in ("douyin", "douyin-old", "standard", "standard-old"):
        (tmp_path / name).write_text((config.path.parent / name).read_text())
    return tmp_path


@pytest.fixture
async def ingest(folder: Path, kafka: TestBroker) -> AsyncIterator[Ingest]:
    ingest = Ingest(folder, kafka.bootstrap, SPOOL_BYTES="1048576", DRAIN_RATE="500")
    yield ingest
    await ingest.close()


async def all_arrive(ingest: Ingest, published: Published) -> list[str]:
    """Waits until every accepted event is in Kafka; returns the ids in the order of a partition's log."""
    ids: list[str] = []
    async with asyncio.timeout(300):
        while not ingest.accepted <= set(ids):
            await asyncio.sleep(0.5)
            ids = [value["id"] for topic, _, value in await published() if topic == "superfan.interactions"]
    return ids


async def test_frozen_kafka_then_a_killed_ingest_with_a_full_spool(
    ingest: Ingest, kafka: TestBroker, published: Published
) -> None:
    await ingest.start()
    await ingest.send_many(0, 20)
    kafka.freeze()
    try:
        await ingest.send_many(1000, 800)
        ingest.report("kafka frozen")
        assert set(ingest.statuses) == {202}
        number = 10_000
        while await ingest.send(number, 20_000) == 202:
            number += 1
        for small in range(2000):
            if await ingest.send(20_000 + small) == 503:
                break
        assert ingest.statuses[503] >= 2
        waiting = await ingest.metric("superfan_spool_events")
        assert waiting > 800
        assert await ingest.metric("superfan_ingest_breaker_state") > 0
        await ingest.kill()
        shown = CliRunner().invoke(app, ["spool", "inspect", str(ingest.spool)])
        assert shown.output.splitlines()[0] == f"events   {waiting:.0f}", shown.output
        assert f"type     comment {waiting:.0f}" in shown.output
        await ingest.start()
        assert await ingest.metric("superfan_spool_events") == waiting
    finally:
        kafka.thaw()
    await all_arrive(ingest, published)
    async with asyncio.timeout(180):
        while await ingest.metric("superfan_spool_events"):
            await asyncio.sleep(0.1)
    assert await ingest.send(30_000) == 202


async def test_killed_kafka_comes_back_and_fresh_events_overtake_those_that_wait(
    ingest: Ingest, kafka: TestBroker, published: Published
) -> None:
    ingest.env["SUPERFAN_INGEST_DRAIN_RATE"] = "50"
    await ingest.start()
    await ingest.send_many(0, 20)
    await kafka.kill()
    try:
        await ingest.send_many(1000, 1000)
        ingest.report("kafka dead")
        assert set(ingest.statuses) == {202}
        assert await ingest.ready()
    finally:
        await kafka.start()
    fresh = 5000
    async with asyncio.timeout(180):
        while await ingest.metric("superfan_ingest_breaker_state"):
            await ingest.send(fresh)
            fresh += 1
            await asyncio.sleep(0.2)
    assert await ingest.metric("superfan_spool_events") > 0
    accepted_before = await ingest.metric("superfan_spool_appended_total")
    await ingest.send_many(6000, 5)
    assert await ingest.metric("superfan_spool_appended_total") == accepted_before
    ids = await all_arrive(ingest, published)
    assert ids.count("e6004") == 1


async def test_ingest_killed_again_and_again_while_it_drains(
    ingest: Ingest, kafka: TestBroker, published: Published
) -> None:
    await ingest.start()
    kafka.freeze()
    try:
        await ingest.send_many(0, 400)
    finally:
        kafka.thaw()
    for _ in range(4):
        await ingest.kill()
        await ingest.start()
        await asyncio.sleep(0.3)
    await all_arrive(ingest, published)


async def test_a_stopped_ingest_answers_while_it_drains_and_leaves_nothing_on_its_disk(
    ingest: Ingest, kafka: TestBroker, published: Published
) -> None:
    """The pod may be scaled away, and its volume with it."""
    ingest.env |= {"SUPERFAN_INGEST_DRAIN_RATE": "1", "SUPERFAN_DRAIN_SECONDS": "3"}
    await ingest.start()
    kafka.freeze()
    try:
        await ingest.send_many(0, 60)
    finally:
        kafka.thaw()
    assert ingest.child is not None
    assert ingest.child.popen is not None
    ingest.child.popen.terminate()
    async with asyncio.timeout(30):
        while await ingest.ready():
            await asyncio.sleep(0.05)
    assert await ingest.metric("superfan_spool_events") > 0
    assert await ingest.metric("superfan_spool_limit_bytes") == 1_048_576
    body = {"type": "comment", "id": "late", "user": "u1", "data": _comment("late", 20)}
    answer = await ingest.http.post("/v1/events", json=body)
    assert (answer.status_code, answer.headers["connection"]) == (202, "close")
    ingest.accepted.add("late")
    await asyncio.to_thread(ingest.child.popen.wait, 60)
    assert ingest.child.popen.returncode == 0
    assert list(scan(ingest.spool)) == []
    assert ingest.accepted <= {value["id"] for _, _, value in await published()}


async def test_ingest_starts_without_kafka_and_stops_in_good_order(folder: Path) -> None:
    ingest = Ingest(folder, "127.0.0.1:1")
    await ingest.start()
    await ingest.send_many(0, 50)
    ingest.report("kafka never there")
    assert set(ingest.statuses) == {202}
    assert ingest.child is not None
    assert ingest.child.popen is not None
    await ingest.child.stop()
    assert ingest.child.popen.returncode == 0
    assert "events stay in the spool until a process uses it again" in ingest.child.last_lines()
    assert '"count":50' in ingest.child.last_lines()
    assert not (ingest.spool / "events.db-wal").exists()
    await ingest.start()
    assert await ingest.metric("superfan_spool_events") == 50
    await ingest.close()
