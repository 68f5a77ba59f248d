"""One Kafka group member per topic, each applying its partitions' batches; supervised for ever."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from libs.common.consumer import metrics
from libs.common.consumer.lateness import Lateness
from libs.common.consumer.offsets import StoredPositions
from libs.common.consumer.transaction import Applier, OffsetConflictError, is_retryable
from libs.common.kafka import PLAIN, Batch, Consumer, KafkaError, Security, is_forbidden
from libs.common.outbox import Relay

log = structlog.get_logger(__name__)

BATCH_RECORDS = 1000
POLL_SECONDS = 0.5
COMMIT_SECONDS = 1.0
GATHER_SECONDS = 0.025
"""Times the number of a worker's topics: so long events gather while they come one by one. It bounds the transactions
of a worker at about forty a second, whatever it reads; a backlog does not wait."""
SIDE_BY_SIDE_RECORDS = 400
"""From so many records on, what a poll brought is applied as two transactions at once: this process works for one while
PostgreSQL works for the other. They share no partition, so hardly a row."""
FORBIDDEN_SECONDS = 30.0
"""Between two attempts at what Kafka's ACLs forbid: somebody has to change them first."""
STUCK_SECONDS = 90
"""Liveness: a loop that has neither polled nor tried a batch for so long is wedged (three rebalance time-outs)."""


class Worker:
    """All consumers of one service. Each topic has a group of its own, so topics scale and lag apart."""

    def __init__(
        self,
        service: str,
        bootstrap: str,
        topics: Sequence[str],
        *,
        applier: Applier,
        positions: StoredPositions,
        relay: Relay,
        security: Security = PLAIN,
    ) -> None:
        self._line = applier.line
        gather = GATHER_SECONDS * len(topics)
        second = asyncio.Lock()
        self._loops = [
            TopicLoop(service, bootstrap, topic, applier, positions, relay, gather, second, security)
            for topic in topics
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to consume; Kafka may be down."""
        await self._line.start()
        self._tasks = [asyncio.create_task(loop.run(), name=f"consume {loop.topic}") for loop in self._loops]

    async def stop(self) -> None:
        """Finish the batches at hand (10 s at most), then leave the groups."""
        for loop in self._loops:
            loop.stopping = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=10)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._line.stop()

    def stuck(self) -> str | None:
        """Liveness: the topics whose loop has stopped moving, or None. A database or broker being down is not that."""
        ended = [task.get_name() for task in self._tasks if task.done()]
        if ended:
            return f"ended: {', '.join(ended)}"
        now = time.monotonic()
        stuck = [loop.topic for loop in self._loops if now - loop.beat > STUCK_SECONDS]
        return f"no progress for {STUCK_SECONDS} s on {', '.join(stuck)}" if stuck else None

    def unready(self) -> str | None:
        """Readiness: the topics not joined yet, or None."""
        unready = [f"{loop.topic}{loop.problem}" for loop in self._loops if not loop.joined]
        return f"not consuming {', '.join(unready)}" if unready else None


class TopicLoop:
    """Polls one topic and applies what arrives. A full outbox holds it back, and so does a stop or a pause."""

    def __init__(
        self,
        service: str,
        bootstrap: str,
        topic: str,
        applier: Applier,
        positions: StoredPositions,
        relay: Relay,
        gather_seconds: float,
        second: asyncio.Lock,
        security: Security,
    ) -> None:
        self.topic = topic
        self.stopping = False
        self.joined = False
        self.problem = ""
        """Why the last client failed, to be read after the topic's name; empty once one has worked again."""
        self.beat = time.monotonic()
        self._service = service
        self._bootstrap = bootstrap
        self._applier = applier
        self._positions = positions
        self._relay = relay
        self._gather_seconds = gather_seconds
        self._security = security
        self._second = second  # one loop of a worker at a time may use another connection
        self._working = asyncio.Lock()
        self._draining = False
        self._uncommitted: dict[tuple[str, int], int] = {}
        self._committed_at = 0.0
        self._labels = (service, topic)
        self._lateness = Lateness()
        # Told when they are asked for: this loop may hang in a retry.
        metrics.LAG_SECONDS.labels(*self._labels).set_function(
            lambda: self._lateness.seconds(time.time(), holding=self._is_held_back)
        )
        metrics.HELD.labels(*self._labels).set_function(lambda: applier.line.is_paused(topic))

    @property
    def _is_held_back(self) -> bool:
        return self._relay.full or self._applier.line.holds(self.topic)

    async def run(self) -> None:
        """Until `stopping`: a client after the other, each used until it fails."""
        delay = 0.2
        while not self.stopping:
            consumer = Consumer(
                self._bootstrap,
                group_of(self._service, self.topic),
                self.topic,
                client_id=f"superfan-{self._service}",
                positions=self._positions,
                drain=self._drain,
                security=self._security,
                gather_seconds=self._gather_seconds,
            )
            try:
                self.beat = time.monotonic()
                await consumer.start()
                self.joined = not self.problem  # a refusal may come with the first poll only
                while not self.stopping:
                    await self._turn(consumer)
                    self.joined, self.problem = True, ""
                    delay = 0.2
            except Exception as error:
                # Whatever it was, a new client and the stored positions make it right; nothing is lost by trying again.
                if not (isinstance(error, KafkaError | TimeoutError | OSError) or is_retryable(error)):
                    log.exception("the consumer failed unexpectedly", topic=self.topic)
                if is_forbidden(error):
                    delay = FORBIDDEN_SECONDS
                self.problem = f" ({str(error) or type(error).__name__})"
                log.warning("the kafka client is replaced", topic=self.topic, error=repr(error)[:300], delay=delay)
                metrics.REBUILDS.labels(*self._labels).inc()
            finally:
                self.joined = False
                metrics.ASSIGNED.labels(*self._labels).set(0)
                metrics.LAG.labels(*self._labels).set(0)
                await self._commit(consumer, force=True)
                await consumer.stop()
            if not self.stopping:
                self.beat = time.monotonic()
                await self._rest(delay)
                delay = min(delay * 2, 5.0)
        self._lateness.hold((), time.time())

    async def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stopping and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110  (it is a plain flag)
            await asyncio.sleep(min(left, POLL_SECONDS))

    async def _turn(self, consumer: Consumer) -> None:
        if self._is_held_back:
            consumer.pause()
        else:
            consumer.resume()
        metrics.PAUSED.labels(*self._labels).set(self._relay.full)
        try:
            batches = await consumer.poll(BATCH_RECORDS, POLL_SECONDS)
        finally:  # also when the positions of what is held could not be read
            self._lateness.hold(consumer.partitions, time.time())
        for batch in batches:
            self._lateness.took(batch.partition)
        self.beat = time.monotonic()
        if self._applier.line.holds(self.topic):
            for batch in batches:
                consumer.forget(batch)
        elif batches:
            async with self._working:
                await self._apply_all(consumer, batches)
        for partition, looked in consumer.at_end().items():
            self._lateness.at_end(partition, looked)
        metrics.ASSIGNED.labels(*self._labels).set(consumer.assigned)
        metrics.LAG.labels(*self._labels).set(consumer.lag())
        metrics.REBALANCES.labels(*self._labels).inc(consumer.take_rebalances())
        await self._commit(consumer)

    async def _apply_all(self, consumer: Consumer, batches: list[Batch]) -> None:
        halves = halve(batches)
        if len(halves) == 1 or self._second.locked():
            await self._apply(consumer, batches)
            return
        async with self._second:
            ended = await asyncio.gather(*(self._apply(consumer, half) for half in halves), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    async def _apply(self, consumer: Consumer, batches: list[Batch]) -> None:
        delay = 0.1
        while batches := [batch for batch in batches if consumer.owns(batch)]:
            self.beat = started = time.monotonic()
            now = datetime.now(UTC)
            try:
                assert consumer.cluster_id is not None
                published = await self._applier.apply(consumer.cluster_id, batches, now)
            except OffsetConflictError as error:
                metrics.OFFSET_CONFLICTS.labels(*self._labels).inc(len(error.batches))
                log.info("batches are read again", reason=str(error))
                for batch in error.batches:
                    consumer.forget(batch)
                continue
            except Exception as error:
                if not is_retryable(error):
                    raise
                metrics.BATCH_RETRIES.labels(*self._labels).inc()
                log.warning("a batch waits for the database", topic=self.topic, error=repr(error)[:300], delay=delay)
                if self._draining or self.stopping:
                    for batch in batches:
                        consumer.forget(batch)
                    return
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
                continue
            if published:
                self._relay.wake()
            ended = datetime.now(UTC).timestamp()
            metrics.BATCH_SECONDS.labels(*self._labels).observe(time.monotonic() - started)
            if expired := sum(batch.expired for batch in batches):
                metrics.RECORDS_EXPIRED.labels(*self._labels).inc(expired)
                log.error("retention has removed records before they were read", topic=self.topic, count=expired)
            for batch in batches:
                metrics.RECORDS_AGAIN.labels(*self._labels).inc(batch.again)
                self._uncommitted[batch.topic, batch.partition] = batch.next_offset
                newest = batch.records[-1].timestamp / 1000
                self._lateness.applied(batch.partition, newest)
                metrics.EVENT_DELAY.labels(*self._labels).observe(max(0.0, ended - newest))
            return

    async def _drain(self) -> None:
        self._draining = True
        try:
            async with self._working:
                pass
        finally:
            self._draining = False

    async def _commit(self, consumer: Consumer, *, force: bool = False) -> None:
        if not self._uncommitted or (not force and time.monotonic() - self._committed_at < COMMIT_SECONDS):
            return
        self._committed_at = time.monotonic()
        offsets, self._uncommitted = self._uncommitted, {}
        with contextlib.suppress(Exception):
            await consumer.commit(offsets)


def halve(batches: list[Batch]) -> list[list[Batch]]:
    """Two lists of about as many records, or the one when it is small or of one partition."""
    if len(batches) < 2 or sum(len(batch.records) for batch in batches) < SIDE_BY_SIDE_RECORDS:
        return [batches]
    halves: list[list[Batch]] = [[], []]
    sizes = [0, 0]
    for batch in sorted(batches, key=lambda batch: -len(batch.records)):
        smaller = sizes.index(min(sizes))
        halves[smaller].append(batch)
        sizes[smaller] += len(batch.records)
    return halves


def group_of(service: str, topic: str) -> str:
    """The consumer group of `service` on `topic`, e.g. superfan.profile.follows."""
    return f"superfan.{service}.{topic.removeprefix('superfan.')}"
