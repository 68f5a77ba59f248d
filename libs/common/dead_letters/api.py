"""Dead letters over REST: the same in every service that consumes."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request

from libs.common.auth import Caller, require
from libs.common.consumer import Applier
from libs.common.consumer.transaction import WaitForAccountError
from libs.common.dead_letters import schemas, store, usecases
from libs.common.dead_letters.usecases import Operator
from libs.common.events import EventTime, Id
from libs.common.web import (
    Cursor,
    Limit,
    Page,
    Problem,
    conflict,
    decode_cursor,
    forbidden,
    invalid,
    make_page,
    not_found,
    problems,
    unavailable,
)
from libs.common.web.database import ReadSessionDep

T = TypeVar("T")

router = APIRouter(tags=["operations"])


async def _applier(request: Request) -> Applier:
    applier: Applier = request.app.state.applier
    return applier


ApplierDep = Annotated[Applier, Depends(_applier)]
ReaderDep = Annotated[Caller, Depends(require("ops:read"))]
WriterDep = Annotated[Caller, Depends(require("ops:write"))]
LetterId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=[schemas.LETTER_ID])]


@router.get("/v1/dead-letters", summary="Events that could not be applied")
async def list_dead_letters(
    caller: ReaderDep,
    session: ReadSessionDep,
    type: Annotated[Id | None, Query(description="event type")] = None,  # noqa: A002
    error: Annotated[Id | None, Query(description="kind of the error")] = None,
    topic: Annotated[Id | None, Query(description="Kafka topic")] = None,
    since: Annotated[EventTime | None, Query(description="first written at or after")] = None,
    until: Annotated[EventTime | None, Query(description="first written before")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.Summary]:
    """Those of the account, newest first, and those that name no account, without their content."""
    letters = await store.page(
        session,
        caller.account.name,
        store.Filter(type, error, topic, since, until),
        _before(cursor),
        limit + 1,
        with_nobodys=True,
    )
    return make_page(letters, limit, schemas.summary, lambda letter: (letter.first_at, letter.digest.hex()))


@router.get("/v1/dead-letters/{letter_id}", summary="One dead letter with its content", responses=problems(404))
async def get_dead_letter(letter_id: LetterId, caller: ReaderDep, session: ReadSessionDep) -> schemas.Shown:
    """`value` is the event as JSON, `value_base64` the bytes when they are not JSON."""
    letter = await store.find(session, caller.account.name, bytes.fromhex(letter_id))
    if letter is None:
        raise _unknown()
    return schemas.shown(letter)


@router.put(
    "/v1/dead-letters/{letter_id}",
    summary="Correct the event",
    responses=problems(404, 409),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "the whole event, corrected",
            "content": {"application/json": {"schema": {"type": "object"}, "example": schemas.EVENT}},
        }
    },
)
async def edit_dead_letter(
    letter_id: LetterId, caller: WriterDep, applier: ApplierDep, request: Request
) -> schemas.Shown:
    """It must be a valid event of the same account, source and id, of the same topic and trust. Nothing is applied."""
    raw = await request.body()  # the bytes themselves: an event is read as the consumer will read it
    edit = partial(usecases.edit, applier, _operator(caller), bytes.fromhex(letter_id), raw, datetime.now(UTC))
    return schemas.shown(await _answered(edit))


@router.post("/v1/dead-letters/{letter_id}/dry-run", summary="What would a redrive do?", responses=problems(404, 409))
async def dry_run_dead_letter(letter_id: LetterId, caller: WriterDep, applier: ApplierDep) -> schemas.Result:
    """Applies the event in a transaction that is rolled back."""
    digest = bytes.fromhex(letter_id)
    run = partial(usecases.redrive, applier, _operator(caller), digest, datetime.now(UTC), dry_run=True)
    return schemas.result(await _answered(run))


@router.post("/v1/dead-letters/{letter_id}/redrive", summary="Try the event again", responses=problems(404, 409))
async def redrive_dead_letter(letter_id: LetterId, caller: WriterDep, applier: ApplierDep) -> schemas.Result:
    """The letter goes when its event has been applied, now or before; it counts once however often this is called.

    When it fails again the letter stays, with the new reason and one more attempt.
    """
    run = partial(usecases.redrive, applier, _operator(caller), bytes.fromhex(letter_id), datetime.now(UTC))
    return schemas.result(await _answered(run))


@router.post("/v1/dead-letters/{letter_id}/drop", summary="Delete for good", responses=problems(404, 409))
async def drop_dead_letter(
    letter_id: LetterId, caller: WriterDep, applier: ApplierDep, body: schemas.Drop
) -> schemas.Result:
    """The event is never applied. The log keeps who dropped it and why."""
    drop = partial(usecases.drop, applier, _operator(caller), bytes.fromhex(letter_id), body.reason)
    return schemas.result(await _answered(drop))


@router.post("/v1/dead-letters:redrive", summary="Try many events again")
async def redrive_dead_letters(
    caller: WriterDep, applier: ApplierDep, body: schemas.RedriveMany, cursor: Cursor = None
) -> schemas.Results:
    """Each in a transaction of its own, with its own result. Letters that name no account are left alone."""
    operator = _operator(caller)

    async def act(digest: bytes) -> usecases.Result:
        return await usecases.redrive(applier, operator, digest, datetime.now(UTC))

    return await _many(applier, operator, body, cursor, act)


@router.post("/v1/dead-letters:drop", summary="Delete many for good")
async def drop_dead_letters(
    caller: WriterDep, applier: ApplierDep, body: schemas.DropMany, cursor: Cursor = None
) -> schemas.Results:
    """Each in a transaction of its own, with its own result. Letters that name no account are left alone."""
    operator = _operator(caller)
    return await _many(applier, operator, body, cursor, partial(usecases.drop, applier, operator, reason=body.reason))


def _operator(caller: Caller) -> Operator:
    return Operator(caller.account.name, caller.key_id, caller.trust)


async def _many(
    applier: Applier,
    operator: Operator,
    body: schemas.RedriveMany,
    cursor: str | None,
    act: Callable[[bytes], Awaitable[usecases.Result]],
) -> schemas.Results:
    which = store.Filter(**body.filter.model_dump())
    before = _before(cursor)
    run = partial(usecases.each, applier, operator, which, before, body.limit, act)
    return schemas.results(await _answered(run))


async def _answered(action: Callable[[], Awaitable[T]]) -> T:
    try:
        return await action()
    except usecases.UnknownLetterError:
        raise _unknown() from None
    except usecases.NobodysLetterError:
        raise forbidden("The letter names no account, so it can only be dropped.", "nobodys_letter") from None
    except usecases.ChangedMeanwhileError:
        raise conflict("Somebody else changed the letter just now; look at it again.", "changed_meanwhile") from None
    except usecases.InvalidEventError as error:
        found = [{"pointer": problem.pointer, "detail": problem.detail} for problem in error.problems[:100]]
        raise Problem(422, "invalid_request", "The event is not valid.", found) from None
    except WaitForAccountError:
        raise unavailable("This process does not know the account yet.", "account_unknown_yet") from None


def _unknown() -> Problem:
    return not_found("There is no such dead letter, and no such event was applied.", "unknown_dead_letter")


def _before(cursor: str | None) -> tuple[datetime, bytes] | None:
    if not cursor:
        return None
    first_at, digest = decode_cursor(cursor, (datetime, str))
    try:
        return first_at, bytes.fromhex(digest)
    except ValueError:
        raise invalid("is not a cursor of this list", parameter="query/cursor") from None
