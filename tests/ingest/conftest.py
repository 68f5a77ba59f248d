"""An ingest app on the real broker, and a reader of what it published."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from libs.common.config import ConfigFile, hash_key, make_key
from libs.common.events import TOPICS
from libs.common.kafka import Producer
from services.ingest.domain.breaker import Breaker
from services.ingest.jobs import drain
from services.ingest.main import build_app
from services.ingest.spool import Spool
from services.ingest.usecases import Stores
from tests.support.kafka import TestBroker

KEY, CLIENT_KEY, READ_KEY = (make_key(name, "secret") for name in ("dev", "app", "reader"))
DOUYIN_SECRET = "douyin-secret"
DOUYIN_OLD_SECRET = "douyin-old-secret"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_OLD_SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi10aGUtdGVzdHM="

TOML = f"""
[accounts.demo]
[accounts.other]

[[keys]]
id = "dev"
account = "demo"
sha256 = "{hash_key(KEY)}"
scopes = ["events:write"]

[[keys]]
id = "app"
account = "demo"
sha256 = "{hash_key(CLIENT_KEY)}"
scopes = ["events:write"]
trust = "client"

[[keys]]
id = "reader"
account = "demo"
sha256 = "{hash_key(READ_KEY)}"
scopes = ["profile:read"]

[[sources]]
id = "douyin-demo"
account = "demo"
platform = "douyin"
id_space = "douyin"
secret_files = ["douyin", "douyin-old"]

[[sources]]
id = "standard-demo"
account = "demo"
platform = "standard"
id_space = "shop"
secret_files = ["standard", "standard-old"]

[[sources]]
id = "nowhere"
account = "demo"
platform = "nosuch"
id_space = "x"
secret_files = ["douyin"]
"""

Record = tuple[str, bytes, dict[str, Any]]
Published = Callable[[], Awaitable[list[Record]]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    folder = tmp_path_factory.mktemp("ingest")
    secrets = {
        "douyin": DOUYIN_SECRET,
        "douyin-old": DOUYIN_OLD_SECRET,
        "standard": STANDARD_SECRET,
        "standard-old": STANDARD_OLD_SECRET,
    }
    for name, secret in secrets.items():
        (folder / name).write_text(secret + "\n")
    path: Path = folder / "superfan.toml"
    path.write_text(TOML)
    return ConfigFile(path, "ingest")


@asynccontextmanager
async def serving(
    config: ConfigFile, bootstrap: str, ack_seconds: float, spool_bytes: int = 1 << 30
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app with its own producer and spool."""
    producer = Producer(bootstrap, "ingest-tests")
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder), limit_bytes=spool_bytes, limit_seconds=3600)
        await spool.start()
        await producer.start()
        draining = asyncio.create_task(drain(spool, producer, rate=2000))
        try:
            app = build_app(config, Stores(producer, spool, Breaker(), ack_seconds))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as client:
                yield client
        finally:
            draining.cancel()
            await asyncio.wait({draining})
            await producer.stop()
            await spool.stop()


@pytest.fixture(scope="module")
async def api(config: ConfigFile, kafka: TestBroker) -> AsyncIterator[httpx.AsyncClient]:
    # A busy machine must not turn a slow acknowledgement into a failed test.
    async with serving(config, kafka.bootstrap, ack_seconds=30) as client:
        yield client


@pytest.fixture(scope="module")
async def reader(kafka: TestBroker) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=50)
    await consumer.start()
    consumer.assign([TopicPartition(topic.name, number) for topic in TOPICS for number in range(topic.partitions)])
    yield consumer
    await consumer.stop()


@pytest.fixture
async def published(reader: AIOKafkaConsumer) -> Published:
    """Gives (topic, key, value) of every record that was published since the test began."""
    before = await reader.end_offsets(reader.assignment())

    async def read() -> list[Record]:
        found: list[Record] = []
        for place, end in (await reader.end_offsets(reader.assignment())).items():
            if end == before[place]:
                continue
            reader.seek(place, before[place])
            while await reader.position(place) < end:
                records = (await reader.getmany(place, timeout_ms=1000)).get(place, [])
                found += [(record.topic, record.key, orjson.loads(record.value)) for record in records]
        return found

    return read
