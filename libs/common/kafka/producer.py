"""Publishing with an answer per record and a deadline that holds whatever the broker does."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from libs.common.kafka.deadline import within
from libs.common.kafka.lanes import CLOCK_OFFSET, Call, Lane, NotConnectedError, Record, partition_of
from libs.common.kafka.security import PLAIN, Security, refusal

log = structlog.get_logger(__name__)

MAX_RECORD_BYTES = 1_048_576
"""Largest record; equal to the topics' max.message.bytes."""

REBUILD_AFTER_SECONDS = 10.0
"""So long every send must have failed before the client is replaced: only a start asks the bootstrap address again."""

FORGOTTEN_AFTER_SECONDS = 30.0
"""So long a failure makes a process unready: without requests nothing would be sent that could prove it over."""


PARTITIONS_SECONDS = 5.0
"""So long a topic's partitions count as known: more may be added at any time."""


def is_refusal(error: Exception) -> bool:
    """Whether a record's outcome says that Kafka will never take it, not that Kafka is not well."""
    return isinstance(
        error,
        AssertionError  # of the client, about the record's form
        | CorruptRecordException
        | InvalidTopicError
        | MessageSizeTooLargeError
        | PolicyViolationError
        | RecordListTooLargeError,
    )


def _is_too_large(record: Record) -> bool:
    """Whether the topics would refuse it for its size."""
    if len(record.key) + len(record.value) < MAX_RECORD_BYTES // 2 and len(record.headers) < 2:
        return False
    headers = list(record.headers)
    size: int = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, headers)
    return size > MAX_RECORD_BYTES


class Producer:
    """Publishes with acks=all; starts even while Kafka is down and connects when it can.

    Idempotence is off on purpose: with it a dead broker makes `send` and `stop` of aiokafka wait without end.
    A send that timed out may still land, so every consumer removes repeats by event identity.
    """

    def __init__(self, bootstrap: str, client_id: str, *, security: Security = PLAIN, linger_ms: int = 0) -> None:
        self._bootstrap = bootstrap
        self._security = security
        self._client_id = client_id
        self._clock_offset = CLOCK_OFFSET.labels(client_id.removeprefix("superfan-"))
        self._linger_ms = linger_ms
        self._client: AIOKafkaProducer | None = None
        self._refusal: str | None = None
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._partitions: dict[str, tuple[float, list[int]]] = {}
        self._supervisor: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._failed_at = 0.0
        self._rebuild = asyncio.Event()

    async def start(self) -> None:
        """Begin to connect; returns at once when Kafka cannot be reached, else when connected."""
        connected = asyncio.Event()
        self._supervisor = asyncio.create_task(self._supervise(connected), name=f"kafka producer {self._client_id}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connected.wait(), 3)

    async def stop(self) -> None:
        """Close within about 5 seconds; what has not been acknowledged by then is unknown."""
        if self._supervisor:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        await self._close()

    @property
    def problem(self) -> str | None:
        """Why publishing fails at present, or None."""
        if self._client is None:
            return f"not connected to Kafka: {self._refusal}" if self._refusal else "not connected to Kafka"
        if self._failing_since is not None and time.monotonic() - self._failed_at < FORGOTTEN_AFTER_SECONDS:
            return f"no acknowledgement from Kafka for {time.monotonic() - self._failing_since:.0f} s"
        return None

    async def send(self, records: Sequence[Record], timeout: float) -> list[Exception | None]:  # noqa: ASYNC109 - a promise to callers
        """Publish `records` and wait for the acknowledgements, `timeout` seconds at most.

        Returns for each record None (stored with acks=all) or why not. TimeoutError means unknown: it may still land.
        """
        if not records:
            return []
        call = Call(len(records), TimeoutError("no acknowledgement in time"))
        deadline = asyncio.get_running_loop().call_later(timeout, call.give_up)
        try:
            found = {topic: await self._partitions_of(topic, deadline) for topic in {one.topic for one in records}}
            client = self._client
            if client is None:
                return [NotConnectedError("not connected to Kafka")] * len(records)
            for index, record in enumerate(records):
                partitions = found[record.topic]
                if isinstance(partitions, Exception):
                    call.settle(index, partitions)
                elif _is_too_large(record):
                    call.settle(index, MessageSizeTooLargeError(f"a record may have {MAX_RECORD_BYTES} bytes"))
                elif not call.done.done():
                    place = (record.topic, partition_of(record.key, partitions))
                    lane = self._lanes.get(place)
                    if lane is None:
                        lane = self._lanes[place] = Lane(client, *place, self._clock_offset)
                    lane.put(record, call, index)
            await call.done
        finally:
            deadline.cancel()
        self._note(None in call.outcomes)
        return call.outcomes

    async def _partitions_of(self, topic: str, deadline: asyncio.TimerHandle) -> Sequence[int] | Exception:
        """The topic's partitions, or why they cannot be told before the deadline."""
        known = self._partitions.get(topic)
        if known is not None and time.monotonic() - known[0] < PARTITIONS_SECONDS:
            return known[1]
        if self._client is None:
            return NotConnectedError("not connected to Kafka")
        left = deadline.when() - asyncio.get_running_loop().time()
        try:
            partitions = sorted(await within(max(0.0, left), self._client.partitions_for(topic)))
        except (KafkaError, TimeoutError) as error:
            return error
        self._partitions[topic] = (time.monotonic(), partitions)
        return partitions

    def _note(self, success: bool) -> None:
        now = time.monotonic()
        if not success:
            self._failed_at = now
        if success:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > REBUILD_AFTER_SECONDS:
            self._failing_since = now
            self._rebuild.set()

    async def _supervise(self, connected: asyncio.Event) -> None:
        delay = 0.2
        while True:
            client = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=False,
                request_timeout_ms=4000,
                retry_backoff_ms=100,
                max_batch_size=262_144,
                linger_ms=self._linger_ms,
                compression_type="lz4",
                max_request_size=MAX_RECORD_BYTES,
                metadata_max_age_ms=10_000,
                **self._security.options(),
            )
            try:
                await within(10, client.start())
            except (KafkaError, TimeoutError, OSError) as error:
                await _stop(client)
                self._refusal = await refusal(self._bootstrap, self._security)
                log.warning(
                    "kafka is not reachable", bootstrap=self._bootstrap, error=repr(error), reason=self._refusal
                )
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
                continue
            delay = 0.2
            self._refusal = None
            self._client = client
            connected.set()
            self._rebuild.clear()
            await self._rebuild.wait()
            log.warning("kafka producer is replaced after failing too long", client_id=self._client_id)
            await self._close()

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _stop(client)
        for lane in self._lanes.values():
            lane.close()
        self._lanes = {}


async def _stop(client: AIOKafkaProducer) -> None:
    try:
        await within(5, client.stop())
    except Exception as error:  # the client is not used again, whatever is wrong with it
        log.warning("kafka producer did not close cleanly", error=repr(error))
