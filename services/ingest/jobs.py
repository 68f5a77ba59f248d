"""Brings what waits in the spool to Kafka, beside the fresh events."""

import asyncio
import time

import structlog

from libs.common.kafka import Producer
from services.ingest.spool import Row, Spool, SpoolError

log = structlog.get_logger(__name__)

SEND_SECONDS = 5.0
IDLE_SECONDS = 0.2
LONGEST_PAUSE = 3.0
EMPTY_SECONDS = 10.0


async def drain(spool: Spool, producer: Producer, rate: int) -> None:
    """Publish the spool's events, at most `rate` a second, until cancelled; each is deleted after its acknowledgement.

    Does not ask the breaker: a Kafka that is too slow for requests still takes what waits. Killed between
    acknowledgement and deletion it publishes again: identity removes the repeat.
    """
    after = 0
    pause = IDLE_SECONDS
    while True:
        if spool.figures.events == 0:
            after = 0
            await asyncio.sleep(IDLE_SECONDS)
            continue
        began = time.monotonic()
        try:
            rows = await spool.read(after, max(1, min(500, rate // 20)))
            acknowledged = await _publish(spool, producer, rows)
        except SpoolError as error:
            log.warning("the spool cannot be drained", error=str(error))
            acknowledged = 0
            rows = []
        # What Kafka refuses stays, and must not hold up what comes after it.
        after = rows[-1].id if rows else 0
        if acknowledged:
            pause = IDLE_SECONDS
            await asyncio.sleep(max(0.0, len(rows) / rate - (time.monotonic() - began)))
        else:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def empty(spool: Spool, producer: Producer) -> None:
    """Before the process ends: bring what waits to Kafka, as fast as Kafka takes it, within 10 s. Its volume may not be
    used again for long. What Kafka does not take stays, and the log says how much."""
    waiting = spool.figures.events
    if not waiting:
        return
    after = 0
    try:
        async with asyncio.timeout(EMPTY_SECONDS):
            while rows := await spool.read(after, 500):
                if not await _publish(spool, producer, rows) and producer.problem is not None:
                    break
                after = rows[-1].id
    except (SpoolError, TimeoutError) as error:
        log.warning("the spool cannot be emptied", error=repr(error))
    left = spool.figures.events
    log.info("events of the spool were brought to Kafka before the end", count=waiting - left)
    if left:
        log.warning("events stay in the spool until a process uses it again", count=left)


async def _publish(spool: Spool, producer: Producer, rows: list[Row]) -> int:
    if not rows:
        return 0
    outcomes = await producer.send([row.record for row in rows], SEND_SECONDS)
    stored = [row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome is None]
    if stored:
        await spool.delete(stored)
    return len(stored)
