"""Judge what was sent, event by event, and publish it."""

import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram

from libs.common.events import EVENT_TYPES, Problem
from libs.common.kafka import Producer, Record, is_refusal
from services.ingest.domain.breaker import Breaker, State
from services.ingest.domain.completion import Refusal, Sender, complete, too_large
from services.ingest.domain.masking import mask
from services.ingest.domain.strict_json import find_flaws
from services.ingest.spool import EVENT_HEADERS, Spool, SpoolError

log = structlog.get_logger(__name__)

SERVICE = "ingest"
REJECTED_TOPIC = "superfan.rejected"

ACCEPTED = Counter(
    "superfan_ingest_accepted_total", "Events that Kafka has acknowledged or the spool holds", ["service", "type"]
)
INVALID = Counter(
    "superfan_ingest_invalid_total",
    "Events refused; types that are not known count as `other`",
    ["service", "type", "reason"],
)
NOT_STORED = Counter(
    "superfan_ingest_not_stored_total",
    "Good events that neither Kafka nor the spool took; their request was answered with 503",
    ["service", "error"],
)
SPOOLED = Counter(
    "superfan_ingest_spooled_total",
    "Good events that Kafka had not acknowledged and the spool took; error = why not",
    ["service", "error"],
)
BREAKER_STATE = Gauge(
    "superfan_ingest_breaker_state", "0: Kafka is asked; 1: one request at a time; 2: not asked", ["service"]
)
REJECTED_LOST = Counter(
    "superfan_ingest_rejected_lost_total", "Refused events whose masked copy could not be kept", ["service"]
)
ACK_SECONDS = Histogram(
    "superfan_ingest_ack_seconds",
    "Seconds from handing a request's events to Kafka to the last acknowledgement",
    ["service"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
)
WEBHOOKS = Counter(
    "superfan_webhooks_total",
    "Deliveries of platforms; outcome = handshake, accepted, ignored, invalid, rejected or not_stored",
    ["service", "platform", "outcome", "reason"],
)


_ACK_SECONDS = ACK_SECONDS.labels(SERVICE)
_BREAKER_STATE = BREAKER_STATE.labels(SERVICE)
_accepted = cache(partial(ACCEPTED.labels, SERVICE))
"""The counter of one of the known types; searching for it by its labels costs as much as reading an event."""


class NotStoredError(Exception):
    """Neither Kafka nor the spool has every good event; some may be stored."""


class BreakerOpenError(Exception):
    """Kafka was not asked."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Where good events go: to Kafka, or to the spool when Kafka has not acknowledged them after `ack_seconds`."""

    producer: Producer
    spool: Spool
    breaker: Breaker
    ack_seconds: float

    @property
    def problem(self) -> str | None:
        """Why no event can be taken at present, or None."""
        if self.producer.problem is None or self.spool.problem is None:
            return None
        return f"{self.producer.problem}; {self.spool.problem}"


class Verdict(NamedTuple):
    """What becomes of one event. `record` is what will be published, of a refused one the masked copy."""

    type: str
    id: str | None
    source: str | None
    retry_safe: bool
    mark: str | None
    refusal: Refusal | None
    record: Record


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that came together. `clean`: the reader vouches for their text (see `strict_json`)."""

    items: Sequence[Any]
    clean: bool
    cloudevents: bool = False
    id_of: Callable[[int], str] | None = None
    """Id of the event at an index, if it has none itself; the same when the batch is sent again."""


def judge(batch: Batch, sender: Sender, received: datetime) -> list[Verdict]:
    """Complete every event or say why not; one bad event does not touch the others."""
    return [_judge(batch, index, sent, sender, received) for index, sent in enumerate(batch.items)]


def _judge(batch: Batch, index: int, sent: Any, sender: Sender, received: datetime) -> Verdict:
    has_id = isinstance(sent, dict) and sent.get("id") is not None
    retry_safe = has_id or batch.id_of is not None
    if not batch.clean and (flaws := find_flaws(sent)):
        return refuse(sent, Refusal("json", flaws[:20]), sender, received, retry_safe=retry_safe)
    fallback = "" if has_id else batch.id_of(index) if batch.id_of is not None else str(uuid4())
    result = complete(
        dict(sent) if isinstance(sent, dict) else sent,
        sender,
        received,
        fallback,
        cloudevent=batch.cloudevents,
        clean=batch.clean,
    )
    if isinstance(result, Refusal):
        return refuse(sent, result, sender, received, retry_safe=retry_safe)
    value = result.to_json()
    if refusal := too_large(len(value)):
        return refuse(sent, refusal, sender, received, retry_safe=retry_safe)
    record = Record(result.topic, result.key, value, EVENT_HEADERS)
    return Verdict(result.type, result.id, result.source, retry_safe, result.timemark, None, record)


def refuse(sent: Any, refusal: Refusal, sender: Sender, received: datetime, *, retry_safe: bool = True) -> Verdict:
    """The verdict on a bad event. Its copy for `superfan.rejected` shows the shape, not the values."""
    fields = sent if isinstance(sent, dict) else {}
    name = fields.get("type")
    known = name if isinstance(name, str) and name in EVENT_TYPES else None
    copy = {
        "account": sender.account,
        "sender": sender.source,
        "received": received,
        "type": known,
        "id": _printable(fields.get("id")),
        "reason": refusal.reason,
        "errors": [_error(problem) for problem in refusal.problems],
        "event": mask(sent),
    }
    record = Record(REJECTED_TOPIC, sender.account.encode(), orjson.dumps(copy, option=orjson.OPT_UTC_Z))
    source = _printable(fields.get("source"))
    return Verdict(known or "other", copy["id"], source, retry_safe, None, refusal, record)


def _printable(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable() else None


def _error(problem: Problem) -> dict[str, str]:
    return {"pointer": problem.pointer, "detail": problem.detail}


async def publish(stores: Stores, verdicts: Sequence[Verdict]) -> Literal["kafka", "spool"]:
    """Return when every good event is stored: all in Kafka, or in the spool what is not there. Raises NotStoredError
    when one is in neither.

    Masked copies of bad events go to Kafka alone, best effort: their failure is counted and nothing else.
    """
    if not verdicts:
        return "kafka"
    outcomes = await _send(stores, [verdict.record for verdict in verdicts])
    if not any(outcomes) and not any(verdict.refusal for verdict in verdicts):
        for name, count in Tally([verdict.type for verdict in verdicts]).items():
            _accepted(name).inc(count)
        return "kafka"
    failures = Tally[str]()
    accepted, invalid = Tally[str](), Tally[tuple[str, str]]()
    waiting: list[tuple[Verdict, str]] = []
    for verdict, outcome in zip(verdicts, outcomes, strict=True):
        if verdict.refusal is not None:
            invalid[verdict.type, verdict.refusal.reason] += 1
            if outcome is not None:
                REJECTED_LOST.labels(SERVICE).inc()
        elif outcome is None:
            accepted[verdict.type] += 1
        elif is_refusal(outcome):
            failures[type(outcome).__name__] += 1
        else:
            waiting.append((verdict, type(outcome).__name__))
    if waiting:
        try:
            await stores.spool.append([verdict.record for verdict, _ in waiting])
        except SpoolError as error:
            failures.update(name for _, name in waiting)
            log.warning("the spool did not take events", reason=str(error))
        else:
            accepted.update(verdict.type for verdict, _ in waiting)
            for name, count in Tally(name for _, name in waiting).items():
                SPOOLED.labels(SERVICE, name).inc(count)
    for name, count in accepted.items():
        _accepted(name).inc(count)
    for (name, reason), count in invalid.items():
        INVALID.labels(SERVICE, name, reason).inc(count)
    if failures:
        for error_name, count in failures.items():
            NOT_STORED.labels(SERVICE, error_name).inc(count)
        log.warning("events were not stored", count=failures.total(), errors=dict(failures))
        raise NotStoredError
    return "spool" if waiting else "kafka"


async def _send(stores: Stores, records: Sequence[Record]) -> Sequence[Exception | None]:
    """Each record's outcome of Kafka, which is not asked while the breaker is open."""
    started = time.monotonic()
    breaker = stores.breaker
    allowed = breaker.allow(started)
    if breaker.state is not State.CLOSED:
        _BREAKER_STATE.set(breaker.state)
    if not allowed:
        return [BreakerOpenError()] * len(records)
    try:
        outcomes = await stores.producer.send(records, stores.ack_seconds)
    except BaseException:
        breaker.forget()
        raise
    now = time.monotonic()
    failed = [outcome for outcome in outcomes if outcome is not None]
    if not failed:
        _ACK_SECONDS.observe(now - started)
    if failed and all(map(is_refusal, failed)):
        breaker.forget()
    else:
        breaker.record(not failed, now)
    _BREAKER_STATE.set(breaker.state)
    return outcomes


def results(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The answer's `results`, one per event in the order of the request."""
    return [
        {
            "index": index,
            "id": verdict.id,
            "source": verdict.source,
            "status": "accepted" if verdict.refusal is None else "invalid",
            "retry_safe": verdict.retry_safe,
            "marks": [verdict.mark] if verdict.mark else [],
            "errors": [_error(problem) for problem in verdict.refusal.problems] if verdict.refusal else [],
        }
        for index, verdict in enumerate(verdicts)
    ]
