"""A group member whose position comes from the caller's database, never from Kafka's own commits."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from libs.common.kafka.deadline import within
from libs.common.kafka.security import PLAIN, Security, refusal

log = structlog.get_logger(__name__)

REBALANCE_TIMEOUT_SECONDS = 30
UNVERIFIED_SECONDS = 30

IDLE_WAIT_SECONDS = 0.5
GATHER_BYTES = 32_768
"""While nothing comes, the broker answers the first record at once. While records come, it waits until so many bytes
have gathered, or `gather_seconds` are over: a fetch and a transaction for one record cost about what they cost for
forty."""


class Message(Protocol):
    """A record as it was read; `timestamp` is the broker's append time in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition, read from `position` on; `next_offset` is the position after them.

    `position` may lie before the first record, where retention has removed `expired` records. Our topics are neither
    compacted nor written in transactions, so there is no other reason.

    Records below `applied_until` were applied before: the group has told Kafka so, and then the database went back to
    an older state, restored from a backup or failed over to a standby that lagged behind.
    """

    topic: str
    partition: int
    position: int
    next_offset: int
    records: Sequence[Message]
    applied_until: int = 0

    @property
    def expired(self) -> int:
        """How many records are gone that should have been read before these."""
        return self.records[0].offset - self.position

    @property
    def again(self) -> int:
        """How many of the records were applied before."""
        if self.records[0].offset >= self.applied_until:
            return 0
        return sum(record.offset < self.applied_until for record in self.records)


class Positions(Protocol):
    """Where to read on, kept in the caller's database."""

    async def load(self, cluster_id: str, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The stored position of each (topic, partition) that has one."""

    async def reset(self, cluster_id: str, begins: dict[tuple[str, int], int]) -> None:
        """Store the earliest offset for partitions without a position, or with one past the end."""


Drain = Callable[[], Awaitable[None]]
"""Waits until no batch is being worked on; called before partitions are given up."""


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of one group on one topic.

    Traps of aiokafka 0.14 that it avoids:
    - getmany() may return records before the assignment callback has run: records of a partition that has not been
      located since its assignment are thrown away and read again from the stored position;
    - a broker that came back with other data on the same address is read on silently: after every change of
      connections the cluster's id is read, and another id locates everything anew;
    - a cancelled getmany() leaks a counter that switches the poll watchdog off: it is never cancelled while running
      normally, and `stop` replaces the whole client;
    - deserializers that raise make a partition loop: none is passed;
    - commits retry without a deadline: they get one, and lost ownership is not an error.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topic: str,
        *,
        client_id: str,
        positions: Positions,
        drain: Drain,
        security: Security = PLAIN,
        gather_seconds: float = 0.0,
    ) -> None:
        self.topic = topic
        self._bootstrap = bootstrap
        self._security = security
        self._gather_seconds = gather_seconds
        self.cluster_id: str | None = None
        self._verified_at = time.monotonic()
        self._rebalances = 0
        self._stored = positions
        self._drain = drain
        self._positions: dict[TopicPartition, int] = {}
        self._applied_until: dict[TopicPartition, int] = {}
        self._connections: frozenset[object] = frozenset()
        self._client = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            client_id=client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=1_000,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_SECONDS * 1000,
            max_poll_interval_ms=300_000,
            fetch_max_wait_ms=100,
            fetch_max_bytes=8 * 1_048_576,
            max_partition_fetch_bytes=1_048_576,
            max_poll_records=None,
            metadata_max_age_ms=10_000,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
            **security.options(),
        )

    async def start(self) -> None:
        """Join the group; raises KafkaError or TimeoutError when the brokers or the topic are not there, or refuse."""
        self._client.subscribe([self.topic], listener=self)
        try:
            await within(30, self._client.start())
        except KafkaConnectionError as error:
            raise KafkaConnectionError(await refusal(self._bootstrap, self._security) or error) from error

    async def stop(self) -> None:
        """Leave the group within about 5 seconds."""
        try:
            await within(5, self._client.stop())
        except Exception as error:  # the client is not used again, whatever is wrong with it
            log.warning("kafka consumer did not close cleanly", topic=self.topic, error=repr(error))

    @property
    def assigned(self) -> int:
        """How many partitions this member holds."""
        return len(self._client.assignment())

    @property
    def partitions(self) -> set[int]:
        """Those that this member holds."""
        return {tp.partition for tp in self._client.assignment()}

    def at_end(self) -> dict[int, float]:
        """The held partitions of which everything has been handed out that there was at the last look, and when that
        was in seconds since 1970."""
        found = {}
        for tp, position in self._positions.items():
            if tp in self._client.assignment():
                end, looked = self._client.highwater(tp), self._client.last_poll_timestamp(tp)
                if looked is not None and position >= (end or 0):
                    found[tp.partition] = looked / 1000
        return found

    def lag(self) -> int:
        """Records of the held partitions that have not been handed out, as far as the last fetch knows."""
        total = 0
        for tp, position in self._positions.items():
            if tp in self._client.assignment():
                total += max(0, (self._client.highwater(tp) or position) - position)
        return total

    def take_rebalances(self) -> int:
        """How often partitions were given up since the last call."""
        count, self._rebalances = self._rebalances, 0
        return count

    def pause(self) -> None:
        """Fetch nothing more until `resume`; polling goes on, so the membership stays."""
        self._client.pause(*self._client.assignment())

    def resume(self) -> None:
        """Undo `pause`."""
        self._client.resume(*self._client.paused())

    async def poll(self, max_records: int, wait_seconds: float) -> list[Batch]:
        """What has arrived, a batch a partition; empty after `wait_seconds` without any.

        Raises KafkaError or TimeoutError; then the client is to be replaced.
        """
        fetched = await within(
            2 * REBALANCE_TIMEOUT_SECONDS,
            self._client.getmany(timeout_ms=int(wait_seconds * 1000), max_records=max_records),
        )
        if not await self._is_same_cluster():
            for tp in fetched:
                self._positions.pop(tp, None)
            await asyncio.sleep(wait_seconds)
            return []
        placed = await self._place_new()
        if fetched or not placed:
            self._let_gather(bool(fetched))
        batches = []
        for tp, records in fetched.items():
            position = self._positions.get(tp)
            if position is None or tp in placed:
                continue  # located after these were fetched: they are fetched again from the right place
            fresh = [record for record in records if record.offset >= position]
            if fresh:
                next_offset = fresh[-1].offset + 1
                applied_until = self._applied_until.get(tp, 0)
                batches.append(Batch(tp.topic, tp.partition, position, next_offset, fresh, applied_until))
                self._positions[tp] = next_offset
        return batches

    def _let_gather(self, busy: bool) -> None:
        # Private on purpose: aiokafka reads both anew for each request, but offers no way to change them.
        fetcher = self._client._fetcher
        gather = busy and self._gather_seconds > 0
        fetcher._fetch_min_bytes = GATHER_BYTES if gather else 1
        fetcher._fetch_max_wait_ms = int((self._gather_seconds if gather else IDLE_WAIT_SECONDS) * 1000)

    def owns(self, batch: Batch) -> bool:
        """Whether the batch's partition is still assigned here and has been read on from this batch."""
        return self._positions.get(TopicPartition(batch.topic, batch.partition)) == batch.next_offset

    def forget(self, batch: Batch) -> None:
        """Read the batch's partition again from its stored position."""
        self._positions.pop(TopicPartition(batch.topic, batch.partition), None)

    async def commit(self, positions: dict[tuple[str, int], int]) -> None:
        """Tell Kafka how far the database is: for lag displays and autoscaling only, so failures are ignored."""
        owned = self._client.assignment()
        offsets = {TopicPartition(*tp): offset for tp, offset in positions.items() if TopicPartition(*tp) in owned}
        if not offsets:
            return
        with contextlib.suppress(CommitFailedError, IllegalStateError, TimeoutError, KafkaError):
            await within(2, self._client.commit(offsets))

    async def on_partitions_revoked(self, _revoked: Iterable[TopicPartition]) -> None:
        """Called by aiokafka before a rebalance: finish what is being worked on, forget all positions."""
        self._rebalances += 1
        try:
            await asyncio.wait_for(self._drain(), REBALANCE_TIMEOUT_SECONDS - 5)
        except TimeoutError:
            log.warning("a batch outlived the rebalance; its offset check will refuse it", topic=self.topic)
        self._positions.clear()

    async def on_partitions_assigned(self, _assigned: Iterable[TopicPartition]) -> None:
        """Called by aiokafka after a rebalance; positions are looked up by `poll`, which may run before this."""

    async def _is_same_cluster(self) -> bool:
        """Whether the brokers are known to be those of `cluster_id`. False while none answers: aiokafka connects
        again by itself and keeps the membership, so the client is only given up after UNVERIFIED_SECONDS."""
        try:
            await self._check_cluster()
        except (KafkaError, TimeoutError, OSError):
            if time.monotonic() - self._verified_at > UNVERIFIED_SECONDS:
                raise
            return False
        self._verified_at = time.monotonic()
        return True

    async def _check_cluster(self) -> None:
        # Private on purpose: aiokafka offers no sign of a lost connection and drops the cluster id from its metadata.
        kafka = self._client._client
        connections = frozenset(kafka._conns.values())
        if connections == self._connections and self.cluster_id is not None:
            return
        response = await within(10, kafka.send(kafka.get_random_node(), MetadataRequest([])))
        if response.cluster_id != self.cluster_id:
            if self.cluster_id is not None:
                log.warning("another kafka cluster answers", was=self.cluster_id, now=response.cluster_id)
            self.cluster_id = str(response.cluster_id)
            self._positions.clear()
            self._applied_until.clear()
        self._connections = connections

    async def _place_new(self) -> set[TopicPartition]:
        new = sorted(self._client.assignment() - self._positions.keys())
        if not new:
            return set()
        assert self.cluster_id is not None
        # The ends are read after the stored positions: the other way round a position could seem to lie past the end.
        stored = await self._stored.load(self.cluster_id, [(tp.topic, tp.partition) for tp in new])
        begins = await within(15, self._client.beginning_offsets(new))
        ends = await within(15, self._client.end_offsets(new))
        positions: dict[TopicPartition, int] = {}
        resets: dict[tuple[str, int], int] = {}
        for tp in new:
            position = stored.get((tp.topic, tp.partition))
            if position is None or position > ends[tp]:
                position = resets[tp.topic, tp.partition] = begins[tp]
            positions[tp] = position
        if resets:
            await self._stored.reset(self.cluster_id, resets)
        await self._find_applied({tp: position for tp, position in positions.items() if position < ends[tp]})
        for tp, position in positions.items():
            if tp in self._client.assignment():
                self._client.seek(tp, max(position, begins[tp]))
                self._positions[tp] = position
        return set(new)

    async def _find_applied(self, positions: Mapping[TopicPartition, int]) -> None:
        """Note how far the group has applied these partitions: what it committed to Kafka was in its database."""
        for tp in positions:
            self._applied_until[tp] = await within(15, self._client.committed(tp)) or 0
        again = sum(max(0, self._applied_until[tp] - position) for tp, position in positions.items())
        if again:
            log.warning("the database is older than what was applied", topic=self.topic, applied_again=again)


async def tail(
    bootstrap: str,
    topics: Sequence[str],
    *,
    from_start: bool = False,
    started: asyncio.Event | None = None,
    security: Security = PLAIN,
) -> AsyncIterator[Message]:
    """Every record of `topics` as it comes, without a group; for people and tests.

    Once `started` is set, nothing that is written from then on is missed.
    """
    client = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest" if from_start else "latest",
        fetch_max_wait_ms=100,
        **security.options(),
    )
    try:
        await client.start()
        if not from_start:
            await client.seek_to_end()
        if started is not None:
            started.set()
        async for record in client:
            yield record
    finally:
        await client.stop()
