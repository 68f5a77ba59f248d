"""Topics by declaration, the cluster's id, and where each partition begins and ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError

from libs.common.events import TOPICS, Topic
from libs.common.kafka.deadline import within
from libs.common.kafka.security import PLAIN, Security, refusal

TOPIC_ALREADY_EXISTS = 36

PATIENT_SECONDS = 10.0
"""So long a broker that is starting again is waited for: its address answers before its partitions do."""


@asynccontextmanager
async def admin_client(bootstrap: str, security: Security = PLAIN) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for administration, for as long as the context lasts. Raises KafkaError."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, client_id="superfan-admin", request_timeout_ms=15_000, **security.options()
    )
    try:
        try:
            await admin.start()
        except KafkaConnectionError as error:
            raise KafkaConnectionError(await refusal(bootstrap, security) or error) from error
        yield admin
    finally:
        await admin.close()


async def cluster_id(bootstrap: str, *, security: Security = PLAIN) -> str:
    """The id that the brokers at `bootstrap` report; another id means other data."""
    async with admin_client(bootstrap, security) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


def topic_settings(topic: Topic) -> dict[str, str]:
    """The settings that a declared topic has."""
    return {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(topic.retention_days * 86_400_000),
        "cleanup.policy": "delete",
    }


async def apply_topics(bootstrap: str, replication_factor: int = 1, *, security: Security = PLAIN) -> list[str]:
    """Create every declared topic that is missing, change none that is there; returns the names of those created."""
    async with admin_client(bootstrap, security) as admin:
        present = set(await admin.list_topics())
        missing = [topic for topic in TOPICS if topic.name not in present]
        if not missing:
            return []
        response = await admin.create_topics(
            [
                NewTopic(
                    name=topic.name,
                    num_partitions=topic.partitions,
                    replication_factor=replication_factor,
                    topic_configs=topic_settings(topic),
                )
                for topic in missing
            ]
        )
        for name, code, *message in response.topic_errors:
            if code not in (0, TOPIC_ALREADY_EXISTS):
                raise RuntimeError(f"topic {name} was not created: error {code} {message}")
        return [topic.name for topic in missing]


Offsets = dict[tuple[str, int], int]
"""By topic and partition."""


async def end_offsets(bootstrap: str, topics: Iterable[str], *, security: Security = PLAIN) -> Offsets:
    """The offset after the last record of every partition of `topics`; a missing topic has no entry."""
    return (await log_ends(bootstrap, topics, security=security))[1]


async def log_ends(bootstrap: str, topics: Iterable[str], *, security: Security = PLAIN) -> tuple[Offsets, Offsets]:
    """The offset of the first record and the one after the last of every partition of `topics`.

    Raises KafkaError, OSError or TimeoutError when that could not be read for PATIENT_SECONDS.
    """
    names = list(topics)
    given_up = time.monotonic() + PATIENT_SECONDS
    while True:
        try:
            return await within(10, _read_log_ends(bootstrap, names, security))
        except (KafkaError, OSError, TimeoutError):
            if time.monotonic() > given_up:
                raise
            await asyncio.sleep(0.2)


async def _read_log_ends(bootstrap: str, topics: list[str], security: Security) -> tuple[Offsets, Offsets]:
    async with admin_client(bootstrap, security) as admin:
        # A consumer knows partitions of subscribed topics only.
        described = await admin.describe_topics(topics)
    partitions = [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in described
        for partition in topic["partitions"]
    ]
    if not partitions:
        return {}, {}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, client_id="superfan-admin", enable_auto_commit=False, **security.options()
    )
    try:
        await consumer.start()
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        return _plain(begins), _plain(ends)
    finally:
        await consumer.stop()


def _plain(offsets: dict[TopicPartition, int]) -> Offsets:
    return {(tp.topic, tp.partition): offset for tp, offset in offsets.items()}
