"""From a request's bytes to judged and published events; shared by the routes."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import orjson
from fastapi import Request, Response

from libs.common import tracing
from libs.common.config import Source
from libs.common.telemetry import current_traceparent
from libs.common.web import Problem, bad_request, invalid, unavailable
from libs.common.web.limits import RateLimits
from libs.common.web.problems import MOST_ERRORS, pointer_to, problem_response
from services.ingest import usecases
from services.ingest.domain.completion import Sender
from services.ingest.domain.strict_json import Document, MalformedJsonError, Marked, read
from services.ingest.platforms import standard
from services.ingest.platforms.adapter import Rejection
from services.ingest.usecases import SERVICE, WEBHOOKS, Batch, NotStoredError, Verdict

MAX_EVENTS = 1000
RETRY_SECONDS = 5
JSON, CLOUDEVENT, CLOUDEVENTS = (
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
)
_CHARSET = re.compile(r'charset *= *"?([^";\s]+)', re.IGNORECASE)


Headers = Mapping[str, str]
"""Names in lower case; of a header that stands more than once, the first."""


def headers_of(request: Request) -> Headers:
    """All at once: a dozen searches, one by one, in the list of a request cost more."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(request.scope["headers"])}


async def take_signed(request: Request, headers: Headers, source: Source, raw: bytes, received: datetime) -> Response:
    """Events signed by Standard Webhooks. Raises Problem."""
    result = standard.verify(headers, raw, source.secrets, received)
    if isinstance(result, Rejection):
        count_delivery(source, "rejected", result.reason)
        raise refusal_of(result)
    limit_source(request, source)
    try:
        response = await take(request, headers, raw, sender_of(source), received, webhook_id=result.webhook_id)
    except Problem as problem:
        count_delivery(source, "not_stored" if problem.status == 503 else "invalid", problem.code)
        raise
    count_delivery(source, "accepted" if response.status_code == 202 else "invalid")
    return response


async def take(
    request: Request,
    headers: Headers,
    raw: bytes,
    sender: Sender,
    received: datetime,
    *,
    idempotency_key: str | None = None,
    webhook_id: str | None = None,
) -> Response:
    """Judge and publish the events in `raw`; 202 or 422. Raises Problem when the body as a whole is no good."""
    media = _media_type(headers)
    items, clean, place = _items(_read(raw), media)
    if len(items) > MAX_EVENTS:
        raise Problem(413, "too_many_events", f"At most {MAX_EVENTS} events may come at once; these are {len(items)}.")
    id_of = None if idempotency_key is None else lambda index: f"{idempotency_key}:{index}"
    if webhook_id is not None:
        items = [_with_time(item) for item in items]
        id_of = lambda index: webhook_id if place is None else f"{webhook_id}:{index}"  # noqa: E731
    verdicts = usecases.judge(Batch(items, clean, media != JSON, id_of), sender, received)
    await publish(request, verdicts)
    accepted = sum(verdict.refusal is None for verdict in verdicts)
    results = usecases.results(verdicts)
    if accepted or not verdicts:
        content = {"accepted": accepted, "invalid": len(verdicts) - accepted, "results": results}
        return Response(orjson.dumps(content), 202, media_type="application/json")
    errors = [
        {
            "pointer": error["pointer"] if place is None else f"{place}/{result['index']}{error['pointer']}",
            "detail": error["detail"],
        }
        for result in results
        for error in result["errors"]
    ]
    detail = "The event is not valid." if place is None else "None of the events is valid."
    return problem_response(Problem(422, "invalid_events", detail, errors[:MOST_ERRORS]), results=results)


def _with_time(item: Any) -> Any:
    """Standard Webhooks calls the time of an event `timestamp`."""
    if isinstance(item, dict) and "timestamp" in item and "time" not in item:
        return {"time" if name == "timestamp" else name: value for name, value in item.items()}
    return item


async def publish(request: Request, verdicts: Sequence[Verdict]) -> None:
    """Returns when the good events are stored. Raises Problem 503."""
    try:
        if tracing.tracer is None or not tracing.is_sampled(traceparent := current_traceparent()):
            await usecases.publish(request.app.state.stores, verdicts)
        else:
            attributes = {"superfan.events": len(verdicts)}
            with tracing.tracer.span("store events", "producer", traceparent, attributes) as span:
                span.set_attribute("superfan.store", await usecases.publish(request.app.state.stores, verdicts))
    except NotStoredError:
        again = "Send the same request again: what is stored already counts once."
        if any(not verdict.retry_safe for verdict in verdicts):
            again = (
                "Events without id may be stored already: give them ids or send an Idempotency-Key to repeat safely."
            )
        raise unavailable(f"The events could not be stored. {again}", "not_stored", RETRY_SECONDS) from None


async def read_body(request: Request) -> bytes:
    """The raw body, read once; the app limits its size."""
    chunks: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise bad_request("The client went away before the body was complete.", "client_closed_request")
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _media_type(headers: Headers) -> str:
    """The one of the three media types that the body has."""
    header = headers.get("content-type", "")
    media = header.partition(";")[0].strip().lower()
    if media not in (JSON, CLOUDEVENT, CLOUDEVENTS):
        raise _unsupported(f"Send Content-Type: {JSON}, {CLOUDEVENT} or {CLOUDEVENTS}.")
    charset = _CHARSET.search(header)
    if charset and charset[1].lower() not in ("utf-8", "utf8"):
        raise _unsupported("Send UTF-8.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("Send the body without Content-Encoding.")
    if "ce-specversion" in headers:
        raise _unsupported("The binary mode of CloudEvents is not supported: send the structured or the batch mode.")
    return media


def _unsupported(detail: str) -> Problem:
    return Problem(415, "unsupported_media_type", detail)


def _read(raw: bytes) -> Document:
    try:
        return read(raw)
    except MalformedJsonError as error:
        errors = [{"pointer": "", "detail": str(error)}]
        raise Problem(400, "malformed_json", f"The body is not JSON: {error}.", errors) from None


def _items(document: Document, media: str) -> tuple[Sequence[Any], bool, str | None]:
    """The events, whether their text is clean, and the pointer of the array that holds them (None: it is one event)."""
    value, clean = document
    if media != CLOUDEVENT and isinstance(value, list):
        return value, clean, ""
    if media != CLOUDEVENTS and isinstance(value, dict | Marked):
        if media == CLOUDEVENT or isinstance(value, Marked) or "events" not in value or "type" in value:
            return [value], clean, None
        others = value.keys() - {"events"}
        if others:
            raise invalid("no other field may stand beside events", pointer=pointer_to([min(others)]))
        if not isinstance(value["events"], list):
            raise invalid("Input should be an array of events", pointer="/events")
        return value["events"], clean, "/events"
    expected = {
        JSON: "an event, an array of events or an object with the field events",
        CLOUDEVENT: f"an event; a batch has the media type {CLOUDEVENTS}",
        CLOUDEVENTS: f"an array of events; a single event has the media type {CLOUDEVENT}",
    }
    raise invalid(f"Input should be {expected[media]}", pointer="")


def sender_of(source: Source) -> Sender:
    """What a delivery's source says about its events."""
    standard_source = source.platform == "standard"
    return Sender(
        account=source.account,
        id_space=source.id_space,
        source=f"/{source.id}",
        trust="server" if standard_source else "platform",
        platform=None if standard_source else source.platform,
        traceparent=current_traceparent(),
    )


def limit_source(request: Request, source: Source) -> None:
    """Count a delivery that is proved to be the source's. Raises Problem 429."""
    limits: RateLimits = request.app.state.rate_limits
    try:
        limits.take_for_source(request.scope, source.id, source.rate_per_second)
    except Problem as problem:
        count_delivery(source, "refused", problem.code)
        raise


def refusal_of(rejection: Rejection) -> Problem:
    """The answer to a delivery that is not taken."""
    codes = {400: "malformed_webhook", 401: "bad_signature", 404: "not_found"}
    headers = {"WWW-Authenticate": "Signature"} if rejection.status == 401 else {}
    return Problem(rejection.status, codes[rejection.status], rejection.detail, headers=headers)


def count_delivery(source: Source, outcome: str, reason: str = "") -> None:
    """One delivery in the metrics."""
    _deliveries(source.platform, outcome, reason).inc()


_deliveries = lru_cache(maxsize=1000)(partial(WEBHOOKS.labels, SERVICE))
