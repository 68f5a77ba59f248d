"""Applying lists of events to a service's database the way its consumer does, without a broker in between.

The proof of every fold: any permutation and repetition of a list, split anyhow into batches and topics, leaves the same
rows as a plain-Python model of the list.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.consumer import Applier, Handler
from libs.common.consumer.offsets import StoredPositions
from libs.common.consumer.transaction import is_retryable
from libs.common.db import Sessions
from libs.common.events import AnyEvent
from libs.common.kafka import Batch

CLUSTER = "test-cluster"
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@dataclass
class FakeMessage:
    """A Kafka record as far as the applier looks at it."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0


class Log:
    """Appends events to partitions and applies them batch by batch through the real transaction."""

    def __init__(self, service: str, sessions: Sessions, handle: Handler, keep: Callable[[str], bool]) -> None:
        self._applier = Applier(service, sessions, handle, keep)
        self._positions = StoredPositions(service, sessions)
        self._next: dict[tuple[str, int], int] = defaultdict(int)

    async def apply(
        self,
        events: Sequence[AnyEvent | bytes],
        *,
        partition: int = 0,
        now: datetime = NOW,
        patient: bool = False,
        again: bool = False,
    ) -> None:
        """One batch a topic among `events` (raw bytes go to superfan.follows), in the order given. `patient`: what may
        succeed later is tried again, as a worker does. `again`: the group had applied them already, with a database
        that has since gone back to an older state."""
        by_topic: dict[str, list[bytes]] = defaultdict(list)
        for event in events:
            raw = isinstance(event, bytes)
            by_topic["superfan.follows" if raw else event.topic].append(event if raw else event.to_json())  # type: ignore[union-attr,arg-type]
        for topic, values in by_topic.items():
            at = self._next[topic, partition]
            if at == 0:
                await self._positions.reset(CLUSTER, {(topic, partition): 0})
            messages = [FakeMessage(topic, partition, at + n, value) for n, value in enumerate(values)]
            self._next[topic, partition] = at + len(values)
            end = at + len(values)
            batch = Batch(topic, partition, at, end, messages, end if again else 0)
            while True:
                try:
                    await self._applier.apply(CLUSTER, [batch], now)
                    break
                except Exception as error:
                    if not (patient and is_retryable(error)):
                        raise


async def rows(sessions: Sessions, table: str, columns: str) -> list[tuple[Any, ...]]:
    """All rows of `columns` in `table`, sorted."""
    async with sessions() as session:
        return sorted((tuple(row) for row in await session.execute(text(f"select {columns} from {table}"))), key=repr)


async def empty(sessions: Sessions) -> None:
    """Remove every row of every table, so that the next example begins anew."""
    async with sessions() as session, session.begin():
        names = await session.execute(
            text(
                "select string_agg(quote_ident(tablename), ', ') from pg_tables"
                " where schemaname = 'public' and tablename <> 'alembic_version' and tablename !~ '^event_p[0-9]+$'"
            )
        )
        await session.execute(text(f"truncate {names.scalar_one()} restart identity"))


@st.composite
def arrivals(draw: st.DrawFn, events: Sequence[AnyEvent]) -> list[list[AnyEvent]]:
    """A shuffle of `events` with some repeated, cut into batches."""
    repeated = draw(st.lists(st.sampled_from(list(events)), max_size=5)) if events else []
    shuffled = draw(st.permutations([*events, *repeated]))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    return [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True) if a < b]
