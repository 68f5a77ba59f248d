"""Whether and when this service has applied one event: the last hop of a trace, the first question in an incident."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text

from libs.common.auth import Caller, require
from libs.common.events import identity_digest
from libs.common.web import not_found, problems
from libs.common.web.database import ReadSessionDep

router = APIRouter(tags=["operations"])


class AppliedEvent(BaseModel):
    """An event in this service's history."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "source": "/douyin-demo",
                "id": "6f0b3a5c9d2e4f81",
                "type": "follow",
                "subject": "douyin:u42",
                "time": "2026-06-01T08:00:00Z",
                "received": "2026-06-01T08:00:00.310000Z",
                "applied": "2026-06-01T08:00:00.352000Z",
            }
        }
    )

    source: str
    id: str
    type: str
    subject: str | None
    time: datetime
    received: datetime
    applied: datetime


@router.get(
    "/v1/applied-events",
    summary="Has this service applied an event, and when?",
    responses=problems(404),
)
async def get_applied_event(
    source: Annotated[str, Query(max_length=1000, examples=["/douyin-demo"])],
    id: Annotated[str, Query(max_length=1000, examples=["6f0b3a5c9d2e4f81"])],  # noqa: A002
    caller: Annotated[Caller, Depends(require("ops:read"))],
    session: ReadSessionDep,
) -> AppliedEvent:
    """404 as long as it has not: still on its way, not for this service, or in the dead letters."""
    row = (
        await session.execute(
            text(
                "select source, id, type, subject, time, received, applied from event"
                " where digest = :digest and account = :account"
            ),
            {"digest": identity_digest(caller.account.name, source, id), "account": caller.account.name},
        )
    ).one_or_none()
    if row is None:
        raise not_found("This service has not applied such an event.", "unknown_event")
    return AppliedEvent(**row._mapping)
