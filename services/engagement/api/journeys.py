"""Journeys: reading, changing and trying them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from libs.common.identity import resolve
from libs.common.web import Cursor, Limit, Page, conflict, decode_cursor, invalid, make_page, problems
from libs.common.web.database import ReadSessionDep, SessionDep
from services.engagement.api.common import ETAG, CallerDep, IfMatch, WriterDep
from services.engagement.domain import journeys, templates
from services.engagement.domain.decisions import REASONS
from services.engagement.domain.templates import TemplateError
from services.engagement.schemas import journeys as schemas
from services.engagement.store import journeys as store
from services.engagement.usecases import journeys as usecases
from services.engagement.usecases.journeys import etag, unknown_journey
from services.engagement.usecases.starting import kind_of

router = APIRouter(tags=["journeys"])

KeyPath = Annotated[schemas.Key, Path()]


@router.get("/v1/journeys", summary="What can be sent")
async def list_journeys(caller: CallerDep, session: ReadSessionDep) -> schemas.Journeys:
    """All journeys in their newest version. Decisions and messages keep the version that they were made by."""
    found = await store.read_newest(session, caller.account.name)
    return schemas.Journeys(items=[_shown(journey) for journey in found])


@router.get("/v1/journeys/{key}", summary="One journey", responses={**problems(404), **ETAG})
async def get_journey(
    key: KeyPath,
    caller: CallerDep,
    session: ReadSessionDep,
    response: Response,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="the newest when absent")] = None,
) -> schemas.Journey:
    """A version of a journey."""
    journey = await _find(session, caller.account.name, key, version)
    response.headers["ETag"] = etag(journey)
    return _shown(journey)


@router.get("/v1/journeys/{key}/versions", summary="Who changed a journey, when and how", responses=problems(404))
async def list_journey_versions(
    key: KeyPath, caller: CallerDep, session: ReadSessionDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[schemas.Journey]:
    """All versions, newest first; the last of a built-in journey is the built-in one."""
    before = decode_cursor(cursor, (int,))[0] if cursor else None
    if before is not None and not 0 <= before < 2**31:
        raise invalid("is not a cursor of this list", parameter="query/cursor")
    await _find(session, caller.account.name, key, None)
    found = await store.page_history(session, caller.account.name, key, before, limit + 1)
    return make_page(found, limit, _shown, lambda journey: (journey.version,))


@router.put("/v1/journeys/{key}", summary="Store a new version of a journey", responses={**problems(409, 412), **ETAG})
async def put_journey(
    key: KeyPath,
    body: schemas.Definition,
    caller: WriterDep,
    session: SessionDep,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: Annotated[
        str | None, Header(pattern=r"^\*$", description="`*`: only when there is no such journey yet.")
    ] = None,
) -> schemas.Journey:
    """In effect from the next event on, unless it is a draft; messages that wait end on the version that they began
    with. A body that says what the newest version says changes nothing."""
    if kind_of(caller.account, body.channel) is None:
        detail = f"{body.channel} is neither in_app nor a channel declared for this account."
        raise conflict(detail, "unknown_channel", [{"pointer": "/channel", "detail": "is not declared"}])
    wanted = body.journey(key, 0, datetime.now(UTC), caller.key_id)
    stored = await usecases.put_journey(
        session, caller.account.name, wanted, if_match, must_be_new=if_none_match is not None
    )
    response.headers["ETag"] = etag(stored)
    return _shown(stored)


@router.post(
    "/v1/journeys/{key}/pause", summary="Stop a journey for a while", responses={**problems(404, 409, 412), **ETAG}
)
async def pause_journey(
    key: KeyPath, caller: WriterDep, session: SessionDep, response: Response, if_match: IfMatch = None
) -> schemas.Journey:
    """Whatever would start it is skipped with the reason `paused`, and so is what waits when its time comes."""
    stored = await usecases.pause_journey(session, caller.account.name, key, if_match, datetime.now(UTC), caller.key_id)
    response.headers["ETag"] = etag(stored)
    return _shown(stored)


@router.post(
    "/v1/journeys/{key}/resume", summary="Let a paused journey go on", responses={**problems(404, 409, 412), **ETAG}
)
async def resume_journey(
    key: KeyPath, caller: WriterDep, session: SessionDep, response: Response, if_match: IfMatch = None
) -> schemas.Journey:
    """What was skipped meanwhile stays skipped."""
    stored = await usecases.resume_journey(
        session, caller.account.name, key, if_match, datetime.now(UTC), caller.key_id
    )
    response.headers["ETag"] = etag(stored)
    return _shown(stored)


@router.post("/v1/journeys/{key}/preview", summary="The texts as a user would read them", responses=problems(404))
async def preview_journey(
    key: KeyPath, body: schemas.RenderRequest, caller: CallerDep, session: ReadSessionDep
) -> schemas.Rendered:
    """Rendered with the values of a user, or with made-up ones. Nothing is kept or sent."""
    journey = await _find(session, caller.account.name, key, body.version)
    variables = {name: dict(values) for name, values in templates.EXAMPLE.items()}
    variables["account"]["name"] = caller.account.name
    variables["event"] |= {"type": journey.trigger, "segment": journey.segment or ""}
    if body.user is not None:
        user = await resolve(session, caller.account.name, body.user)
        subject = user.subjects[0]
        variables["user"] = {"id": user.user_id, "subject": subject, "platform": subject.partition(":")[0]}
        variables["event"]["time"] = datetime.now(UTC).isoformat()
    texts = journey.texts
    if body.texts is not None:
        texts = {lang: journeys.Text(text.title, text.body) for lang, text in body.texts.items()}
    rendered = {}
    for lang, text in texts.items():
        try:
            rendered[lang] = schemas.Text.model_construct(**templates.render(text, variables)._asdict())
        except TemplateError as error:
            raise invalid(str(error), pointer=f"/texts/{lang}") from None
    return schemas.Rendered(texts=rendered, variables=variables)


async def _find(session: Any, account: str, key: str, version: int | None) -> journeys.Journey:
    if version is None:
        newest = await store.read_newest(session, account, [key])
        if newest:
            return newest[0]
    else:
        found = await store.read_versions(session, {(account, key, version)})
        if found:
            return found[account, key, version]
    raise unknown_journey(key)


def _shown(journey: journeys.Journey) -> schemas.Journey:
    return schemas.Journey(
        key=journey.key,
        version=journey.version,
        status=journey.status,
        action=journey.action,
        changed_at=journey.changed_at,
        changed_by=journey.changed_by,
        reasons=dict(REASONS),
        **journey.definition(),
    )
