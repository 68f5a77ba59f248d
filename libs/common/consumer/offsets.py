"""Offsets beside the effects: the row is moved by compare-and-set in the same transaction.

Proof of exactly once: the row lock serialises all who claim a partition; whoever finds another `next_offset` than the
position he read from rolls back. So committed batches form a chain of intervals without gap or overlap.
"""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.consumer.metrics import OFFSET_RESETS
from libs.common.db import Sessions
from libs.common.kafka import Batch

ADVANCE = text(
    "update consumer_offset o set next_offset = n.next_offset, updated_at = now()"
    " from unnest(cast(:topics as text[]), cast(:partitions as int[]), cast(:positions as bigint[]),"
    " cast(:nexts as bigint[])) as n(topic, partition, position, next_offset)"
    " where o.cluster_id = :cluster and o.topic = n.topic and o.partition = n.partition"
    " and o.next_offset = n.position returning o.topic, o.partition"
)


async def advance(session: AsyncSession, cluster_id: str, batches: Sequence[Batch]) -> list[Batch]:
    """Move the partitions of `batches` on, each if it still stands where its batch was read; returns the batches whose
    partition somebody else has moved."""
    rows = sorted(batches, key=lambda batch: (batch.topic, batch.partition))
    result = await session.execute(
        ADVANCE,
        {
            "cluster": cluster_id,
            "topics": [batch.topic for batch in rows],
            "partitions": [batch.partition for batch in rows],
            "positions": [batch.position for batch in rows],
            "nexts": [batch.next_offset for batch in rows],
        },
    )
    moved = {tuple(row) for row in result.all()}
    return [batch for batch in rows if (batch.topic, batch.partition) not in moved]


class StoredPositions:
    """The positions of one service, as `libs.common.kafka.Consumer` wants them."""

    def __init__(self, service: str, sessions: Sessions) -> None:
        self._service = service
        self._sessions = sessions

    async def load(self, cluster_id: str, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The stored position of each (topic, partition) that has one."""
        async with self._sessions() as session:
            rows = await session.execute(
                text(
                    "select topic, partition, next_offset from consumer_offset where cluster_id = :cluster"
                    " and (topic, partition) in"
                    " (select * from unnest(cast(:topics as text[]), cast(:partitions as int[])))"
                ),
                {
                    "cluster": cluster_id,
                    "topics": [topic for topic, _ in partitions],
                    "partitions": [partition for _, partition in partitions],
                },
            )
            return {(row.topic, row.partition): row.next_offset for row in rows}

    async def reset(self, cluster_id: str, begins: dict[tuple[str, int], int]) -> None:
        """Begin at the earliest record: safe, because the event table removes what was applied before."""
        rows = sorted(begins.items())
        async with self._sessions() as session, session.begin():
            await session.execute(
                text(
                    "insert into consumer_offset (cluster_id, topic, partition, next_offset)"
                    " select :cluster, topic, partition, next_offset from"
                    " unnest(cast(:topics as text[]), cast(:partitions as int[]), cast(:nexts as bigint[]))"
                    " as n(topic, partition, next_offset) on conflict (cluster_id, topic, partition)"
                    " do update set next_offset = excluded.next_offset, updated_at = now()"
                ),
                {
                    "cluster": cluster_id,
                    "topics": [key[0] for key, _ in rows],
                    "partitions": [key[1] for key, _ in rows],
                    "nexts": [begin for _, begin in rows],
                },
            )
        for (topic, _), _begin in rows:
            OFFSET_RESETS.labels(self._service, topic).inc()
