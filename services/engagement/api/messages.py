"""What a user was sent, and what he allows."""

from datetime import datetime
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query

from libs.common.identity import resolve
from libs.common.web import Cursor, Limit, Page, decode_cursor, make_page, problems
from libs.common.web.database import ReadSessionDep
from services.engagement.api.common import CallerDep, Ref
from services.engagement.domain.consents import Word, may_reach
from services.engagement.domain.journeys import IN_APP, Journey, Lang, Purpose, Text
from services.engagement.domain.templates import TemplateError, render
from services.engagement.schemas import messages as schemas
from services.engagement.store import facts, journeys
from services.engagement.store import messages as store

router = APIRouter(tags=["messages"])

KINDS = (IN_APP, "dm", "push", "sms", "phone", "email", "webhook")


@router.get("/v1/users/{ref}/messages", summary="A user's messages, of all channels", responses=problems(404))
async def list_messages(
    ref: Ref,
    caller: CallerDep,
    session: ReadSessionDep,
    lang: Annotated[Lang, Query(description="language of title and body")] = "zh",
    channel: Annotated[
        str | None,
        Query(pattern=r"^[a-z0-9_-]{1,40}$", description="only of this channel; `in_app` is the inbox"),
    ] = None,
    state: Annotated[schemas.State | None, Query(description="only in this state")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.Message]:
    """Messages to all subjects of the user, newest first. An app shows those with `channel=in_app&state=sent`."""
    before: Any = decode_cursor(cursor, (datetime, str)) if cursor else None
    user = await resolve(session, caller.account.name, ref)
    rows = await store.page_messages(
        session, user.account, list(user.subjects), {"channel": channel, "state": state}, before, limit + 1
    )
    versions = await journeys.read_versions(session, {(user.account, row.journey, row.journey_version) for row in rows})

    def message(row: Any) -> schemas.Message:
        text = _text(versions[user.account, row.journey, row.journey_version], lang, row.variables)
        return schemas.Message(**row._mapping, lang=lang, title=text.title, body=text.body)

    return make_page(rows, limit, message, lambda row: (row.created_at, row.message_id))


def _text(journey: Journey, lang: Lang, variables: dict[str, Any] | None) -> Text:
    try:
        return render(journey.texts.get(lang) or next(iter(journey.texts.values())), variables)
    except TemplateError:
        return Text("", "")


@router.get("/v1/users/{ref}/consents", summary="What a user allows", responses=problems(404))
async def list_consents(ref: Ref, caller: CallerDep, session: ReadSessionDep) -> schemas.Consents:
    """The newest word on each purpose and channel over all subjects of the user, and what follows from it."""
    user = await resolve(session, caller.account.name, ref)
    rows = await facts.read_consents(session, user.account, user.subjects)
    following = await facts.is_following(session, user.account, user.subjects)
    words = {(row.purpose, row.channel): Word(row.time, row.source, row.id, row.granted) for row in rows}
    pairs = [(purpose, channel) for purpose in get_args(Purpose) for channel in KINDS]
    effective = []
    for purpose, channel in dict.fromkeys([*pairs, *sorted(words)]):
        allowed, values = may_reach(purpose, channel, words, following=following)
        effective.append(schemas.Allowed(purpose=purpose, channel=channel, allowed=allowed, rule=values["rule"]))
    return schemas.Consents(
        user_id=user.user_id,
        following=following,
        items=[schemas.Consent(**row._mapping) for row in rows],
        effective=effective,
    )
