"""engagement over REST."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from libs.common.auth import Caller, require
from libs.common.events import EventTime
from libs.common.identity import resolve
from libs.common.web import Cursor, Limit, Page, decode_cursor, make_page, problems
from libs.common.web.database import ReadSessionDep
from services.engagement import schemas, store
from services.engagement.domain import JOURNEYS, REASONS, JourneyKey, Lang, Outcome, Reason

router = APIRouter()

CallerDep = Annotated[Caller, Depends(require("engagement:read"))]
REF: dict[str, Any] = {"max_length": 200, "description": "a user id or any subject", "examples": ["douyin:u42"]}


@router.get("/v1/users/{ref}/messages", summary="A user's in-app inbox", tags=["messages"], responses=problems(404))
async def list_messages(
    ref: Annotated[str, Path(**REF)],
    caller: CallerDep,
    session: ReadSessionDep,
    lang: Annotated[Lang, Query(description="language of title and body")] = "zh",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.Message]:
    """Messages to all subjects of the user, newest first."""
    before: Any = decode_cursor(cursor, (datetime, str)) if cursor else None
    user = await resolve(session, caller.account.name, ref)
    rows = await store.page_messages(session, user.account, list(user.subjects), before, limit + 1)

    def message(row: Any) -> schemas.Message:
        text = JOURNEYS[row.journey][row.journey_version].texts[lang]
        return schemas.Message(**row._mapping, lang=lang, title=text.title, body=text.body)

    return make_page(rows, limit, message, lambda row: (row.created_at, row.message_id))


@router.get("/v1/decisions", summary="What was sent or not, and why", tags=["decisions"], responses=problems(404))
async def list_decisions(
    caller: CallerDep,
    session: ReadSessionDep,
    user: Annotated[str | None, Query(**REF)] = None,
    journey: Annotated[JourneyKey | None, Query(description="only this journey")] = None,
    outcome: Annotated[Outcome | None, Query(description="only sent or only skipped")] = None,
    reason: Annotated[Reason | None, Query(description="only skipped for this reason")] = None,
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
        event = schemas.CausingEvent(source=row.event_source, id=row.event_id, time=row.event_time)
        return schemas.Decision(**row._mapping, event=event)

    return make_page(rows, limit, decision, lambda row: (row.decided_at, row.revision, row.decision_id))


@router.get("/v1/journeys", summary="What can be sent", tags=["journeys"])
async def list_journeys(_caller: CallerDep) -> schemas.Journeys:
    """All journeys in their present version. Decisions and messages keep the version that they were made by."""
    newest = [versions[max(versions)] for versions in JOURNEYS.values()]
    return schemas.Journeys(
        items=[
            schemas.Journey(
                key=journey.key,
                version=journey.version,
                trigger=journey.trigger,
                max_age_seconds=int(journey.max_age.total_seconds()),
                purpose=journey.purpose,
                channel=journey.channel,
                step=journey.step,
                texts={lang: schemas.Text(title=text.title, body=text.body) for lang, text in journey.texts.items()},
                reasons=dict(REASONS),
            )
            for journey in newest
        ]
    )
