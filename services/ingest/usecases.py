"""Judge what was sent, event by event, and publish it."""

import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
import structlog
from prometheus_client import Counter, Histogram

from libs.common.events import EVENT_TYPES, Problem
from libs.common.kafka import Producer, Record
from services.ingest.domain.completion import Refusal, Sender, complete, too_large
from services.ingest.domain.masking import mask
from services.ingest.domain.strict_json import find_flaws

log = structlog.get_logger(__name__)

SERVICE = "ingest"
REJECTED_TOPIC = "superfan.rejected"
_HEADERS = (("content-type", b"application/cloudevents+json; charset=utf-8"),)

ACCEPTED = Counter("superfan_ingest_accepted_total", "Events that Kafka has acknowledged", ["service", "type"])
INVALID = Counter(
    "superfan_ingest_invalid_total",
    "Events refused; types that are not known count as `other`",
    ["service", "type", "reason"],
)
NOT_STORED = Counter(
    "superfan_ingest_not_stored_total",
    "Good events that Kafka did not acknowledge in time; their request was answered with 503",
    ["service", "error"],
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


class NotStoredError(Exception):
    """Kafka has not acknowledged every good event; some may be stored."""


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
        dict(sent) if isinstance(sent, dict) else sent, sender, received, fallback, cloudevent=batch.cloudevents
    )
    if isinstance(result, Refusal):
        return refuse(sent, result, sender, received, retry_safe=retry_safe)
    value = result.to_json()
    if refusal := too_large(len(value)):
        return refuse(sent, refusal, sender, received, retry_safe=retry_safe)
    record = Record(result.topic, result.key, value, _HEADERS)
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


async def publish(producer: Producer, verdicts: Sequence[Verdict], ack_seconds: float) -> None:
    """Return when Kafka has acknowledged every good event; raises NotStoredError when it has not within `ack_seconds`.

    Masked copies of bad events go with them, best effort: their failure is counted and nothing else.
    """
    if not verdicts:
        return
    started = time.perf_counter()
    outcomes = await producer.send([verdict.record for verdict in verdicts], ack_seconds)
    failures = Tally[str]()
    accepted, invalid = Tally[str](), Tally[tuple[str, str]]()
    for verdict, outcome in zip(verdicts, outcomes, strict=True):
        if verdict.refusal is not None:
            invalid[verdict.type, verdict.refusal.reason] += 1
            if outcome is not None:
                REJECTED_LOST.labels(SERVICE).inc()
        elif outcome is None:
            accepted[verdict.type] += 1
        else:
            failures[type(outcome).__name__] += 1
    for name, count in accepted.items():
        ACCEPTED.labels(SERVICE, name).inc(count)
    for (name, reason), count in invalid.items():
        INVALID.labels(SERVICE, name, reason).inc(count)
    if failures:
        for error, count in failures.items():
            NOT_STORED.labels(SERVICE, error).inc(count)
        log.warning("events were not stored", count=failures.total(), errors=dict(failures))
        raise NotStoredError
    ACK_SECONDS.labels(SERVICE).observe(time.perf_counter() - started)


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
