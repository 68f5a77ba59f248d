"""Topics by declaration, the cluster's id, and how long each partition is."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from libs.common.events import TOPICS, Topic

TOPIC_ALREADY_EXISTS = 36


@asynccontextmanager
async def admin_client(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for administration, for as long as the context lasts. Raises KafkaError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="superfan-admin", request_timeout_ms=15_000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def cluster_id(bootstrap: str) -> str:
    """The id that the brokers at `bootstrap` report; another id means other data."""
    async with admin_client(bootstrap) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


def topic_settings(topic: Topic) -> dict[str, str]:
    """The settings that a declared topic has."""
    return {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(topic.retention_days * 86_400_000),
        "cleanup.policy": "delete",
    }


async def apply_topics(bootstrap: str, replication_factor: int = 1) -> list[str]:
    """Create every declared topic that is missing, change none that is there; returns the names of those created."""
    async with admin_client(bootstrap) as admin:
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


async def end_offsets(bootstrap: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """The offset after the last record of every partition of `topics`; a missing topic has no entry."""
    async with admin_client(bootstrap) as admin:
        # A consumer knows partitions of subscribed topics only.
        described = await admin.describe_topics(list(topics))
    partitions = [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in described
        for partition in topic["partitions"]
    ]
    if not partitions:
        return {}
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, client_id="superfan-admin", enable_auto_commit=False)
    try:
        await consumer.start()
        ends = await consumer.end_offsets(partitions)
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}
    finally:
        await consumer.stop()
