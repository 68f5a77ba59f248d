"""The sender's own events."""

import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from libs.common.auth import Caller, require
from libs.common.config import Config
from libs.common.events import EVENT_TYPES, schema_name
from libs.common.telemetry import current_traceparent
from libs.common.web import not_found, problems
from services.ingest.api.intake import Headers, headers_of, read_body, take, take_signed
from services.ingest.domain.completion import Sender
from services.ingest.schemas import answers, requests

EVENTS_PATH = "/v1/events"
_SOURCE = re.compile(r"[a-z0-9-]{1,40}")
_KEY = re.compile(r"[\x21-\x7e]{1,180}")
_QUERY = re.compile(rf"(?:source=({_SOURCE.pattern}))?".encode())
router = APIRouter(tags=["events"])

_require_write = require("events:write")
SourceParameter = Annotated[
    str | None,
    Query(
        pattern=f"^{_SOURCE.pattern}$",
        description="id of a source with Standard Webhooks signatures: then the headers webhook-id, webhook-timestamp "
        "and webhook-signature stand for a key",
        examples=["standard-demo"],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=f"^{_KEY.pattern}$",
        description="Events without id get the id `<this>:<index>`, so that sending the request again is safe.",
        examples=["import-2026-03-01-a"],
    ),
]


@router.post(
    EVENTS_PATH,
    status_code=202,
    summary="Hand in events",
    response_model=answers.Accepted,
    responses=problems(404, 413, 415),
    openapi_extra=requests.EVENTS_BODY,
)
async def post_events(
    request: Request, source: SourceParameter = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """One event or up to 1,000, as CloudEvents or plain JSON. Each is judged alone: good ones are taken.

    202 means that every accepted event is stored: in Kafka, or on disk until Kafka takes it. 422 means that none was
    good. After 503 send the same request again: events that were stored nevertheless count once, unless they have no
    id and the request no `Idempotency-Key` (`retry_safe: false`).
    """
    return await _post(request, headers_of(request), source, idempotency_key)


async def hand_in(request: Request) -> Response | None:
    """`post_events` without FastAPI, whose search for the route, parameters and dependencies took a third of the time
    of a single event. Parameters that are not as they should be go the usual way, to the usual answers."""
    query = _QUERY.fullmatch(request.scope["query_string"])
    headers = headers_of(request)
    key = headers.get("idempotency-key")
    if query is None or (key is not None and not _KEY.fullmatch(key)):
        return None
    return await _post(request, headers, query[1].decode() if query[1] else None, key)


async def _post(request: Request, headers: Headers, source: str | None, idempotency_key: str | None) -> Response:
    received = datetime.now(UTC)
    if source is not None:
        config: Config = request.app.state.config.current
        declared = config.sources.get(source)
        if declared is None or declared.platform != "standard":
            raise not_found("No source with Standard Webhooks signatures has this id.")
        return await take_signed(request, headers, declared, await read_body(request), received)
    caller = await _require_write(request, None)
    raw = await read_body(request)
    sender = Sender(
        account=caller.account.name,
        id_space=caller.account.id_space,
        source=f"/{caller.key_id}",
        trust=caller.trust,
        traceparent=current_traceparent(),
    )
    return await take(request, headers, raw, sender, received, idempotency_key=idempotency_key)


@router.get("/v1/event-types", summary="Types of events that may be sent")
async def list_event_types(_caller: Annotated[Caller, Depends(_require_write)]) -> answers.EventTypes:
    """Every input type with its JSON Schema."""
    return event_types()


@cache
def event_types() -> answers.EventTypes:
    return answers.EventTypes(
        items=[
            answers.EventTypeInfo(
                name=name,
                description=event_type.description,
                version=event_type.version,
                topic=event_type.topic,
                dataschema=schema_name(name, event_type.version),
                json_schema=event_type.model.model_json_schema(),
            )
            for name, event_type in EVENT_TYPES.items()
            if event_type.direction == "input"
        ]
    )
