"""The sender's own events."""

import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.routing import APIRoute

from libs.common.auth import Caller, require
from libs.common.config import Config
from libs.common.events import EVENT_TYPES, schema_name
from libs.common.telemetry import current_traceparent
from libs.common.web import not_found, problems
from services.ingest.api.intake import read_body, take, take_signed
from services.ingest.domain.completion import Sender
from services.ingest.schemas import answers, requests


class EventsRoute(APIRoute):
    """Calls `post_events` without FastAPI's machinery, whose parameters and dependencies took a sixth of the time of a
    single event, when source and key are as they should be; what is not goes the usual way, to the usual answers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        usual = super().get_route_handler()
        if self.path != EVENTS_PATH:
            return usual

        async def handle(request: Request) -> Response:
            source, key = request.query_params.get("source"), request.headers.get("idempotency-key")
            if (source is None or _SOURCE.fullmatch(source)) and (key is None or _KEY.fullmatch(key)):
                answer: Response = await self.endpoint(request, source, key)
                return answer
            return await usual(request)

        return handle


EVENTS_PATH = "/v1/events"
_SOURCE = re.compile(r"[a-z0-9-]{1,40}")
_KEY = re.compile(r"[\x21-\x7e]{1,180}")
router = APIRouter(tags=["events"], route_class=EventsRoute)

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
