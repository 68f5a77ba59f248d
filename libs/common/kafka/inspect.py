"""What a broker says of its topics and of single records; for diagnosis."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from libs.common.kafka.admin import admin_client


@dataclass(frozen=True)
class TopicState:
    """A topic as it is: partitions, those of them without a leader, and its settings by name."""

    partitions: int
    leaderless: int
    settings: Mapping[str, str]


async def topic_states(bootstrap: str, topics: Iterable[str]) -> dict[str, TopicState]:
    """The state of each of `topics` that is there."""
    async with admin_client(bootstrap) as admin:
        present = sorted(set(topics) & set(await admin.list_topics()))
        if not present:
            return {}
        described = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics(present)}
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in present])
    settings = {
        name: {entry[0]: str(entry[1]) for entry in entries}
        for answer in answers
        for _, _, _, name, entries in answer.resources
    }
    return {
        name: TopicState(
            partitions=len(described[name]),
            leaderless=sum(partition["leader"] < 0 for partition in described[name]),
            settings=settings.get(name, {}),
        )
        for name in present
    }


async def append_times(bootstrap: str, positions: Mapping[tuple[str, int], int], seconds: float = 5) -> list[datetime]:
    """When the first record at or after each of these positions was appended; without those not read in `seconds`."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id="superfan-admin",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=65_536,
    )
    waiting = {TopicPartition(*partition): offset for partition, offset in positions.items()}
    times = []
    try:
        await consumer.start()
        consumer.assign(list(waiting))
        for partition, offset in waiting.items():
            consumer.seek(partition, offset)
        for _ in range(int(seconds / 0.5)):
            for partition, records in (await consumer.getmany(timeout_ms=500, max_records=100)).items():
                if records and waiting.pop(partition, None) is not None:
                    times.append(datetime.fromtimestamp(records[0].timestamp / 1000, UTC))
                    consumer.pause(partition)
            if not waiting:
                break
    finally:
        await consumer.stop()
    return times
