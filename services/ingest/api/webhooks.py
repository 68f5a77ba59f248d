"""What platforms push."""

from datetime import UTC, datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request, Response

from libs.common.config import Config, Source
from libs.common.telemetry import get_logger
from libs.common.web import Problem, not_found, problems
from libs.common.web.problems import too_large
from services.ingest import usecases
from services.ingest.api.intake import (
    count_delivery,
    headers_of,
    limit_source,
    publish,
    read_body,
    refusal_of,
    sender_of,
    take_signed,
)
from services.ingest.domain.completion import Refusal
from services.ingest.platforms import ADAPTERS
from services.ingest.platforms.adapter import Delivery, Events, Flawed, Handshake, Rejection
from services.ingest.schemas import answers, requests
from services.ingest.usecases import Batch

log = get_logger(__name__)
router = APIRouter(tags=["webhooks"])

MAX_WEBHOOK_BYTES = 65_536

SourceId = Annotated[str, Path(max_length=200, description="id of a declared source", examples=["douyin-demo"])]


@router.post(
    "/v1/webhooks/{source}",
    summary="Deliver a platform's webhook",
    response_model=answers.Acknowledgement,
    responses={
        202: {"model": answers.Accepted, "description": "The answer to a source with Standard Webhooks signatures"},
        **problems(400, 401, 404, 413, 415, 429),
    },
    openapi_extra=requests.WEBHOOK_BODY,
)
async def receive_webhook(request: Request, source: SourceId) -> Response:
    """Takes what a platform pushes, signed its own way, up to 64 KiB. The answer is what that platform wants to see.

    Kinds of events that are of no use here are acknowledged and counted. Sources with Standard Webhooks signatures
    may deliver here as well as to `POST /v1/events?source=`, and are answered in the same way.
    """
    return await _receive(request, source)


@router.get(
    "/v1/webhooks/{source}",
    summary="Answer a platform's handshake",
    response_class=Response,
    responses={200: {"description": "What the platform wants to read"}, **problems(400, 401, 404)},
)
async def shake_hands(request: Request, source: SourceId) -> Response:
    """For platforms that prove an address by GET before they deliver to it."""
    return await _receive(request, source)


async def _receive(request: Request, source_id: str) -> Response:
    received = datetime.now(UTC)
    config: Config = request.app.state.config.current
    source = config.sources.get(source_id)
    if source is None:
        raise not_found("No source has this id.")
    headers = headers_of(request)
    raw = await read_body(request)
    if len(raw) > MAX_WEBHOOK_BYTES:
        raise too_large(MAX_WEBHOOK_BYTES)
    if source.platform == "standard" and request.method == "POST":
        return await take_signed(request, headers, source, raw, received)
    adapter = ADAPTERS.get(source.platform)
    if adapter is None:
        log.error("a source has a platform without adapter", source=source.id, platform=source.platform)
        raise not_found(f"Nothing here understands the platform of this source by {request.method}.")
    result = adapter.receive(
        Delivery(
            method=request.method,
            path=request.url.path,
            query=request.query_params,
            headers=headers,
            body=raw,
            secrets=source.secrets,
            now=received,
        )
    )
    if isinstance(result, Rejection):
        count_delivery(source, "rejected", result.reason)
        raise refusal_of(result)
    if isinstance(result, Handshake):
        count_delivery(source, "handshake")
        return Response(result.body, media_type=result.media_type)
    limit_source(request, source)
    return await _acknowledge(request, source, result, received)


async def _acknowledge(request: Request, source: Source, result: Events | Flawed, received: datetime) -> Response:
    sender = sender_of(source)
    if isinstance(result, Flawed):
        verdicts = [usecases.refuse(result.document, Refusal("json", result.problems[:20]), sender, received)]
        result = Events([])
    else:
        verdicts = usecases.judge(Batch(result.items, clean=True), sender, received)
    try:
        await publish(request, verdicts)
    except Problem:
        count_delivery(source, "not_stored")
        raise
    accepted = sum(verdict.refusal is None for verdict in verdicts)
    if result.ignored:
        log.info("webhook kinds ignored", source=source.id, kinds=[kind[:100] for kind in result.ignored])
        count_delivery(source, "ignored", "unknown_kind")
    if verdicts:
        count_delivery(source, "accepted" if accepted else "invalid")
    if result.answer is not None:
        return Response(result.answer, media_type="application/json")
    content = {
        "accepted": accepted,
        "invalid": len(verdicts) - accepted,
        "ignored": result.ignored,
        "results": usecases.results(verdicts),
    }
    return Response(orjson.dumps(content), media_type="application/json")
