"""Why a message was sent or not, and whether it would be now."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from libs.common.events import EventTime
from libs.common.identity import resolve
from libs.common.web import Cursor, Limit, Page, decode_cursor, make_page, problems
from libs.common.web.database import ReadSessionDep
from services.engagement.api.common import REF, CallerDep
from services.engagement.domain.decisions import Outcome, Reason
from services.engagement.schemas import decisions as schemas
from services.engagement.schemas.journeys import Key
from services.engagement.store import decisions as store
from services.engagement.store.decisions import gate_json
from services.engagement.usecases import previewing

router = APIRouter(tags=["decisions"])


@router.get("/v1/decisions", summary="What was sent or not, and why", responses=problems(404))
async def list_decisions(
    caller: CallerDep,
    session: ReadSessionDep,
    user: Annotated[str | None, Query(**REF)] = None,
    journey: Annotated[Key | None, Query(description="only this journey")] = None,
    outcome: Annotated[Outcome | None, Query(description="only with this outcome")] = None,
    reason: Annotated[Reason | None, Query(description="only skipped or held for this reason")] = None,
    known_at: Annotated[
        EventTime | None,
        Query(
            description="what had been decided by this instant; now when absent", examples=["2026-06-05T10:00:00+08:00"]
        ),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.Decision]:
    """Decisions about one user or about all, newest first, each with the values that it was made on."""
    before: Any = decode_cursor(cursor, (datetime, int, str)) if cursor else None
    filters: dict[str, Any] = {"journey": journey, "outcome": outcome, "reason": reason, "known_at": known_at}
    if user is not None:
        filters["subjects"] = list((await resolve(session, caller.account.name, user)).subjects)
    rows = await store.page_decisions(session, caller.account.name, filters, before, limit + 1)

    def decision(row: Any) -> schemas.Decision:
        event = schemas.CausingEvent(type=row.event_type, source=row.event_source, id=row.event_id, time=row.event_time)
        return schemas.Decision(**row._mapping, event=event)

    return make_page(rows, limit, decision, lambda row: (row.decided_at, row.revision, row.decision_id))


@router.post("/v1/decisions/preview", summary="What would be decided now", responses=problems(404))
async def preview_decision(
    body: schemas.PreviewRequest, caller: CallerDep, session: ReadSessionDep
) -> schemas.PreviewedDecision:
    """The decision if the journey's trigger came this instant, with every gate's values. Nothing is kept or sent."""
    now = datetime.now(UTC)
    user = await resolve(session, caller.account.name, body.user)
    decision = await previewing.preview_decision(session, caller.account, user, body.journey, now)
    return schemas.PreviewedDecision(
        user_id=user.user_id,
        journey=decision.journey.key,
        journey_version=decision.journey.version,
        channel=decision.journey.channel,
        purpose=decision.journey.purpose,
        as_of=now,
        outcome=decision.outcome,
        reason=decision.reason,
        until=decision.until,
        values=decision.values,
        gates=[schemas.Gate(**gate_json(gate)) for gate in decision.gates],
    )
