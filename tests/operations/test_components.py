"""What deploy/k8s/components declare, on a real broker and PostgreSQL: with the users of its manifests the services may
do all that they need, what is not theirs is refused, and every setting is one that the servers know."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from libs.cli.local.processes import Child
from libs.common.consumer.worker import group_of
from libs.common.kafka import Producer, Record
from libs.common.kafka.admin import admin_client
from services.ingest.platforms import douyin_signer
from services.profile.consumer import TOPICS
from tests.manifests.tools import of_kind, render_component
from tests.support.postgres import TestServer
from tests.support.secured_kafka import Acl, SecuredBroker
from tests.support.services import SECRETS, System

FAN = "douyin:ou_of_the_users"
NOW = datetime.now(UTC) - timedelta(minutes=1)


def rights() -> list[Acl]:
    """Strimzi's entries as Kafka's."""
    return [
        Acl(user["metadata"]["name"], entry["resource"]["type"], entry["resource"]["name"], operation)
        for user in of_kind(render_component("strimzi"), "KafkaUser")
        for entry in user["spec"]["authorization"]["acls"]
        for operation in entry["operations"]
    ]


@pytest.fixture(scope="module")
def broker() -> SecuredBroker:
    acls = rights()
    return SecuredBroker({user: secrets.token_hex(8) for user in {acl.user for acl in acls}}, acls)


class _System(System):
    """Gives each service the credentials of its own user; where the broker listens is known when it runs."""

    async def spawn(self, service: str, role: str = "all", name: str | None = None) -> Child:
        assert isinstance(self.broker, SecuredBroker)
        self.service_env[service] = self.broker.env(f"kafka-{service}")
        return await super().spawn(service, role, name)


@pytest.fixture(scope="module")
async def system(pg_server: TestServer, broker: SecuredBroker) -> AsyncIterator[System]:
    system = _System(pg_server, {"demo": {"zone": "Asia/Shanghai"}}, broker)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"{kind}-1",
        "source": "/users",
        "type": kind,
        "subject": FAN,
        "time": NOW.isoformat(),
        "data": data,
    }


async def test_services_need_no_more_than_they_may(system: System) -> None:
    body = douyin_signer.follow(FAN.removeprefix("douyin:"), NOW)
    answer = await system.http.post(
        system.url("ingest", "/v1/webhooks/douyin-demo"),
        content=body,
        headers=douyin_signer.sign(body, SECRETS["douyin"]),
    )
    assert answer.status_code == 200, answer.text
    paid = event("order.paid", order_id="o1", amount_minor=19_900, currency="CNY")
    view = event("view", content_id="v1", watch_ms=5_000, duration_ms=10_000)
    await system.post("demo", [paid, view, event("profile.traits", traits={"nickname": "小明"})])
    await system.post_json("rewards", f"/v1/users/{FAN}/sign-ins", "demo", {})
    await system.applied(60)

    # What the other three concluded comes back to profile: so each has read its topics and written to its own.
    overview = await system.get("profile", f"/v1/users/{FAN}/overview", "demo")
    assert overview["following"] is True
    assert overview["traits"]["nickname"]["value"] == "小明"
    assert {placement["segment"] for placement in overview["segments"]} >= {overview["lifecycle"]["segment"]}
    assert overview["balance"]["points"] > 0
    assert overview["streak"]["current"] == 1
    assert overview["last_message"]["journey"] == "welcome"
    assert (await system.get("segmentation", f"/v1/users/{FAN}/ladder", "demo"))["rung"] == "customer"
    for name in system.children:
        log = (system.folder / f"{name}.log").read_text()
        assert "AuthorizationFailed" not in log, log[-2000:]


async def test_a_refused_event_is_told(system: System, broker: SecuredBroker) -> None:
    answer = await system.http.post(
        system.url("ingest", "/v1/events"), json=[event("order.paid")], headers=system.authorization("demo")
    )
    assert "invalid" in answer.text
    assert await _read(broker, None, "superfan.rejected") == 1


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("kafka-segmentation", "superfan.traits"),  # personal data
        ("kafka-ingest", "superfan.follows"),  # who writes need not read
        ("kafka-keda", "superfan.follows"),
        ("kafka-rewards", "superfan.messages"),
    ],
)
async def test_nobody_reads_what_is_not_for_him(broker: SecuredBroker, user: str, topic: str) -> None:
    # To who may not even describe it, a topic does not exist.
    with pytest.raises((TopicAuthorizationFailedError, UnknownTopicOrPartitionError)):
        await _read(broker, user, topic)


async def test_profile_reads_personal_data(system: System, broker: SecuredBroker) -> None:
    await system.post("demo", [event("profile.traits", traits={"nickname": "小明"})])
    assert await _read(broker, "kafka-profile", "superfan.traits") > 0


async def _read(broker: SecuredBroker, user: str | None, topic: str) -> int:
    """How many records the user (None: who may do everything) gets of the topic at first."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker.secured if user else broker.bootstrap,
        auto_offset_reset="earliest",
        **(broker.security(user).options() if user else {}),
    )
    try:
        await consumer.start()
        async with asyncio.timeout(15):
            while not (found := await consumer.getmany(timeout_ms=500)):
                pass
        return sum(len(records) for records in found.values())
    finally:
        await consumer.stop()


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("kafka-profile", "superfan.follows"),  # what it reads it may not make up
        ("kafka-segmentation", "superfan.rewards"),
        ("kafka-ingest", "superfan.profiles"),
        ("kafka-keda", "superfan.follows"),
    ],
)
async def test_nobody_writes_what_is_not_his(broker: SecuredBroker, user: str, topic: str) -> None:
    producer = Producer(broker.secured, "test", security=broker.security(user))
    await producer.start()
    try:
        [outcome] = await producer.send([Record(topic, b"demo/x", b"{}")], timeout=10)
    finally:
        await producer.stop()
    assert isinstance(outcome, TopicAuthorizationFailedError)


@pytest.mark.usefixtures("system")
async def test_nobody_joins_the_group_of_another(broker: SecuredBroker) -> None:
    """He would take partitions away from it."""
    consumer = AIOKafkaConsumer(
        "superfan.follows",
        bootstrap_servers=broker.secured,
        group_id=group_of("profile", "superfan.follows"),
        **broker.security("kafka-segmentation").options(),
    )
    try:
        with pytest.raises(GroupAuthorizationFailedError):  # noqa: PT012 - either call may be told
            async with asyncio.timeout(15):
                await consumer.start()
                await consumer.getmany(timeout_ms=10_000)
    finally:
        await consumer.stop()


@pytest.mark.usefixtures("system")
async def test_kafka_knows_what_is_set(broker: SecuredBroker) -> None:
    """A misspelt setting is passed over in silence."""
    [kafka] = of_kind(render_component("strimzi"), "Kafka")
    async with admin_client(broker.bootstrap) as admin:
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    known = {entry[0] for _, _, _, _, entries in answer.resources for entry in entries}
    assert set(kafka["spec"]["kafka"]["config"]) <= known


async def test_postgresql_knows_what_is_set(system: System) -> None:
    known = {name for (name,) in await system.query("rewards", "select name from pg_settings")}
    for cluster in of_kind(render_component("cnpg"), "Cluster"):
        assert set(cluster["spec"]["postgresql"]["parameters"]) <= known


@pytest.mark.usefixtures("system")
async def test_keda_sees_how_far_each_group_is(broker: SecuredBroker) -> None:
    async with admin_client(broker.secured, broker.security("kafka-keda")) as admin:
        offsets = {topic: await admin.list_consumer_group_offsets(group_of("profile", topic)) for topic in TOPICS}
    moved = {topic for topic, found in offsets.items() if any(one.offset > 0 for one in found.values())}
    assert moved >= {"superfan.follows", "superfan.traits", "superfan.messages"}
