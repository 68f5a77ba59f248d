"""The sender's own events."""

from datetime import UTC, datetime
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from libs.common.auth import Caller, require
from libs.common.config import Config
from libs.common.events import EVENT_TYPES, schema_name
from libs.common.telemetry import current_traceparent
from libs.common.web import not_found, problems
from services.ingest.api.intake import read_body, take, take_signed
from services.ingest.domain.completion import Sender
from services.ingest.schemas import answers, requests

router = APIRouter(tags=["events"])

_require_write = require("events:write")
SourceParameter = Annotated[
    str | None,
    Query(
        pattern=r"^[a-z0-9-]{1,40}$",
        description="id of a source with Standard Webhooks signatures: then the headers webhook-id, webhook-timestamp "
        "and webhook-signature stand for a key",
        examples=["standard-demo"],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,180}$",
        description="Events without id get the id `<this>:<index>`, so that sending the request again is safe.",
        examples=["import-2026-03-01-a"],
    ),
]


@router.post(
    "/v1/events",
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
    received = datetime.now(UTC)
    if source is not None:
        config: Config = request.app.state.config.current
        declared = config.sources.get(source)
        if declared is None or declared.platform != "standard":
            raise not_found("No source with Standard Webhooks signatures has this id.")
        return await take_signed(request, declared, await read_body(request), received)
    caller = await _require_write(request, None)
    raw = await read_body(request)
    sender = Sender(
        account=caller.account.name,
        id_space=caller.account.id_space,
        source=f"/{caller.key_id}",
        trust=caller.trust,
        traceparent=current_traceparent(),
    )
    return await take(request, raw, sender, received, idempotency_key=idempotency_key)


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
