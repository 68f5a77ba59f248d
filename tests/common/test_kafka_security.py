"""Kafka as production has it: TLS, users with passwords that change, and ACLs; on a real broker."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from libs.common import outbox
from libs.common.consumer import Applier, Worker
from libs.common.consumer.offsets import StoredPositions
from libs.common.db import AsyncSession, Sessions, make_engine, make_sessions
from libs.common.events import TOPICS, AnyEvent, new_event
from libs.common.kafka import (
    Consumer,
    KafkaError,
    Producer,
    Record,
    Security,
    apply_topics,
    cluster_id,
    end_offsets,
    tail,
)
from libs.common.migrate import upgrade
from libs.common.outbox import Relay
from tests.support.postgres import TestServer
from tests.support.secured_kafka import Acl, SecuredBroker
from tests.support.services import System
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
FOLLOWS, TRAITS = "superfan.follows", "superfan.traits"
FAN, GATE, ADMIN = "kafka-fan", "kafka-gate", "kafka-admin"
ACLS = [
    Acl(GATE, "topic", FOLLOWS, "Write"),
    Acl(GATE, "topic", TRAITS, "Write"),
    Acl(FAN, "topic", FOLLOWS, "Read"),
    Acl(FAN, "topic", FOLLOWS, "Write"),
    Acl(FAN, "group", "superfan.fan-", "Read", "prefix"),
    Acl(FAN, "group", "superfan.profile.follows", "Read"),
    Acl(ADMIN, "topic", "superfan.", "Describe", "prefix"),
    Acl(ADMIN, "topic", "superfan.", "Read", "prefix"),
]


@pytest.fixture(scope="module")
async def broker() -> AsyncIterator[SecuredBroker]:
    broker = SecuredBroker({FAN: "one", GATE: "two", ADMIN: "three"}, ACLS)
    await broker.start()
    yield broker
    await broker.close()


@pytest.fixture
async def sessions(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


@pytest.fixture
async def gate(broker: SecuredBroker) -> AsyncIterator[Producer]:
    producer = Producer(broker.secured, "gate", security=broker.security(GATE))
    await producer.start()
    yield producer
    await producer.stop()


def event(type_name: str) -> AnyEvent:
    now = datetime.now(UTC)
    return new_event(
        type_name,
        account="demo",
        source="/t",
        id=uuid.uuid4().hex,
        subject="douyin:1",
        time=now,
        received=now,
        data={"traits": {}} if type_name == "profile.traits" else {},
    )


def record(one: AnyEvent) -> Record:
    return Record(one.topic, one.key, one.to_json())


class Fan:
    """A worker that consumes as the user FAN, and remembers what it was given."""

    def __init__(self, broker: SecuredBroker, sessions: Sessions, topics: list[str]) -> None:
        self.seen: set[str] = set()
        name = f"fan-{uuid.uuid4().hex[:8]}"
        unused = Producer(broker.secured, name, security=broker.security(FAN))
        self.worker = Worker(
            name,
            broker.secured,
            topics,
            applier=Applier(name, sessions, self.see, lambda _: False),
            positions=StoredPositions(name, sessions),
            relay=Relay(name, sessions, unused),
            security=broker.security(FAN),
        )

    async def see(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        self.seen |= {one.id for one in events}


async def test_topics_can_be_looked_after_and_read_over_tls_with_a_password(
    broker: SecuredBroker, gate: Producer
) -> None:
    security = broker.security(ADMIN)
    assert await cluster_id(broker.secured, security=security) == await broker.cluster_id()
    assert await apply_topics(broker.secured, security=security) == []
    ends = await end_offsets(broker.secured, [FOLLOWS], security=security)
    assert len(ends) == next(topic.partitions for topic in TOPICS if topic.name == FOLLOWS)
    sent = event("follow")
    assert await gate.send([record(sent)], 5) == [None]
    async with asyncio.timeout(20):
        async for message in tail(broker.secured, [FOLLOWS], from_start=True, security=security):
            if message.value == sent.to_json():
                break
    with pytest.raises(KafkaError):
        await cluster_id(broker.secured)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "libs.cli.main", "topics", "apply"],
        env={**os.environ, **broker.env(ADMIN)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all topics are there\n"), done.stderr


async def test_who_cannot_be_trusted_is_refused_and_the_reason_is_told(broker: SecuredBroker, tmp_path: Path) -> None:
    other_ca = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(str(other_ca))
    wrong_password = tmp_path / "password"
    wrong_password.write_text("wrong")
    good = broker.security(FAN)
    elsewhere = broker.secured.replace("localhost", "127.0.0.1")
    cases = [
        (broker.secured, Security(broker.ca, FAN, wrong_password), "as kafka-fan: [Error 58] SaslAuthenticationFailed"),
        (broker.secured, Security(other_ca, FAN, good.password_file), "is not accepted: unable to get local issuer"),
        (elsewhere, good, "certificate is not valid for '127.0.0.1'"),
        (broker.secured, Security(broker.ca, FAN, tmp_path / "none"), "No such file"),
        (broker.secured, Security(tmp_path / "none", FAN, good.password_file), "is not accepted"),
    ]

    async def told(bootstrap: str, security: Security, reason: str) -> None:
        producer = Producer(bootstrap, "refused", security=security)
        await producer.start()
        try:
            await until(lambda: reason in (producer.problem or ""))
            assert (producer.problem or "").startswith("not connected to Kafka: ")
            (outcome,) = await producer.send([record(event("follow"))], 1)
            assert outcome is not None
        finally:
            await producer.stop()
        with pytest.raises(KafkaError) as raised:
            await cluster_id(bootstrap, security=security)
        assert reason in str(raised.value)
        positions = StoredPositions("refused", None)  # type: ignore[arg-type]
        consumer = Consumer(
            bootstrap, "refused", FOLLOWS, client_id="refused", positions=positions, drain=no_work, security=security
        )
        with pytest.raises(KafkaError) as raised:
            await consumer.start()
        assert reason in str(raised.value)
        await consumer.stop()

    await asyncio.gather(*(told(*case) for case in cases))


async def no_work() -> None:
    pass


async def test_what_acls_forbid_is_told_and_tried_again_without_harm_to_the_rest(
    broker: SecuredBroker, gate: Producer, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.consumer.worker.FORBIDDEN_SECONDS", 0.5)
    followed, told = event("follow"), event("profile.traits")
    outcomes = await gate.send([record(followed), Record("superfan.segments", b"k", b"v"), record(told)], 5)
    assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "TopicAuthorizationFailedError", "NoneType"]

    fan = Fan(broker, sessions, [FOLLOWS, TRAITS])
    await fan.worker.start()
    try:
        await until(lambda: followed.id in fan.seen and "superfan.traits (" in (fan.worker.unready() or ""))
        reason = "[Error 29] TopicAuthorizationFailedError: superfan.traits"
        assert fan.worker.unready() == f"not consuming superfan.traits ({reason})"
        assert fan.worker.stuck() is None
        assert told.id not in fan.seen
        await broker.allow(Acl(FAN, "topic", TRAITS, "Read"))
        await until(lambda: told.id in fan.seen and fan.worker.unready() is None)
    finally:
        await fan.worker.stop()

    stranger = Consumer(
        broker.secured,
        "superfan.somebody.follows",
        FOLLOWS,
        client_id="test",
        positions=StoredPositions("fan", sessions),
        drain=no_work,
        security=broker.security(FAN),
    )
    with pytest.raises(KafkaError, match=r"GroupAuthorizationFailedError: superfan\.somebody\.follows"):
        await stranger.start()
    await stranger.stop()


async def test_new_passwords_and_certificates_are_taken_up_without_a_restart(
    broker: SecuredBroker, gate: Producer, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By clients that live on as well: a broker that is restarted closes connections, and no other may be open."""
    monkeypatch.setattr("libs.common.kafka.producer.REBUILD_AFTER_SECONDS", 1)
    fan = Fan(broker, sessions, [FOLLOWS])
    await fan.worker.start()
    try:
        before = event("follow")
        assert await gate.send([record(before)], 5) == [None]
        await until(lambda: before.id in fan.seen)

        for user in (FAN, GATE):
            await broker.set_password(user, "new")  # which their files do not say yet
        await broker.stop()
        broker.renew_certificates()
        await broker.start()
        async with asyncio.timeout(30):
            while "SaslAuthenticationFailed" not in (gate.problem or ""):
                await gate.send([record(event("follow"))], 0.2)
                await asyncio.sleep(0.02)
        for user in (FAN, GATE):
            broker.write_password(user, "new")
        after = event("follow")
        async with asyncio.timeout(60):
            while await gate.send([record(after)], 1) != [None]:
                await asyncio.sleep(0.1)
        await until(lambda: after.id in fan.seen)
        assert fan.worker.stuck() is None
    finally:
        await fan.worker.stop()


async def test_a_process_of_one_topic_with_settings_from_its_environment(
    broker: SecuredBroker, pg_server: TestServer
) -> None:
    """Its ACLs allow that topic alone. It does all else that a worker does: the event comes out of its own outbox."""
    system = System(pg_server, {"demo": {}}, broker)
    system.write_config()
    system.service_env["profile"] = broker.env(FAN)
    system.databases["profile"] = url = await pg_server.create_database()
    await upgrade(url, "profile")
    sent = event("follow")
    engine = make_engine(url, 1)
    async with make_sessions(engine)() as session, session.begin():
        await outbox.add(session, [sent])
    await engine.dispose()
    worker = await system.spawn("profile", "worker --topics follows")
    try:
        await system.wait_ready(["profile"])
        async with asyncio.timeout(60):
            while sent.id not in await system.event_ids("profile", "demo", "/t"):
                await asyncio.sleep(0.1)
        metrics = (await system.http.get(f"{system.metrics_url('profile')}/metrics")).text
        assert 'service="profile",topic="superfan.follows"' in metrics
        assert 'topic="superfan.views"' not in metrics
        assert worker.popen is not None
        worker.popen.terminate()
        assert await asyncio.to_thread(worker.popen.wait, 60) == 0
    finally:
        await worker.kill()
        await system.http.aclose()
        await pg_server.drop_database(url)
