"""Balances, statements, lots, spending and adjusting."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query

from libs.common.auth import Caller
from libs.common.db import AsyncSession
from libs.common.events import EventTime
from libs.common.identity import UnknownUserError, resolve
from libs.common.telemetry import current_traceparent
from libs.common.web import Cursor, Limit, Page, conflict, decode_cursor, invalid, make_page, not_found, problems
from libs.common.web.database import ReadSessionDep, SessionDep
from services.rewards.api import Keyed, KeyedDep, ReaderDep, Ref, WriterDep
from services.rewards.schemas import points as schemas
from services.rewards.store import statement
from services.rewards.store.definitions import read_rules
from services.rewards.usecases import spending

router = APIRouter(tags=["points"])


@router.get("/v1/users/{ref}/points", summary="Points of a user", responses=problems(404))
async def get_points(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    known_at: Annotated[EventTime | None, Query(description="what had been booked by then; now if absent")] = None,
) -> schemas.Points:
    """The balance and what it is made of, by rule."""
    user = await resolve(session, caller.account.name, ref)
    totals = await statement.read_totals(session, user.account, user.subjects, known_at)
    return schemas.Points(
        user_id=user.user_id,
        balance=sum(points for _, points, _ in totals),
        revision=sum(entries for _, _, entries in totals),
        by_rule={rule: points for rule, points, _ in totals},
    )


@router.get("/v1/users/{ref}/ledger", summary="Why a user has these points", responses=problems(404))
async def list_ledger(
    ref: Ref, caller: ReaderDep, session: ReadSessionDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[schemas.Entry]:
    """Every entry with its rule, the rule's version, its legs and the event or request behind it; newest first."""
    before = _position(cursor)
    user = await resolve(session, caller.account.name, ref)
    rows = await statement.page_ledger(session, user.account, user.subjects, before, limit + 1)
    return make_page(
        rows,
        limit,
        lambda row: schemas.Entry(**_entry(row)),
        lambda row: (row.created_at, row.event_time, str(row.transaction_id)),
    )


@router.get("/v1/users/{ref}/lots", summary="What a user's points are made of", responses=problems(404))
async def list_lots(
    ref: Ref,
    caller: ReaderDep,
    session: ReadSessionDep,
    spent: Annotated[bool, Query(description="whether lots of which nothing is left are shown too")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[schemas.Lot]:
    """The lots in the order in which they are spent: what expires first, then what is oldest."""
    after = _position(cursor)
    user = await resolve(session, caller.account.name, ref)
    rows = await statement.page_lots(session, user.account, user.subjects, after, limit + 1, empty=spent)
    return make_page(
        rows,
        limit,
        lambda row: schemas.Lot(
            lot_id=row.lot_id,
            subject=row.subject,
            rule=row.rule,
            granted=row.granted,
            remaining=row.remaining,
            earned_at=row.earned_at,
            spendable_from=row.spendable_from,
            expires_at=row.expires_at,
        ),
        lambda row: (row.ends_at, row.earned_at, str(row.lot_id)),
    )


@router.get("/v1/entries/{entry_id}", summary="Why one entry was made", responses=problems(404))
async def get_entry(
    entry_id: Annotated[UUID, Path(description="of a statement or a notice")],
    caller: ReaderDep,
    session: ReadSessionDep,
) -> schemas.Why:
    """One entry both ways: the event and the version of the rule behind it, the lot it granted and what that was spent
    on; or the lots that it was paid from."""
    account = caller.account.name
    row = await statement.read_transaction(session, account, entry_id)
    if row is None:
        raise not_found(f"There is no entry {entry_id}.", "unknown_entry")
    versions = (await read_rules(session, [account]))[account].versions.get(row.rule, [])
    version = next((version for version in versions if version.version == row.rule_version), None)
    lot = await statement.read_lot(session, account, entry_id)
    return schemas.Why(
        **_entry(row),
        rule_definition=version.rule.model_dump(mode="json") if version else None,
        lot=None
        if lot is None
        else schemas.LotOfEntry(
            lot_id=lot.lot_id,
            granted=lot.granted,
            remaining=lot.remaining,
            earned_at=lot.earned_at,
            expires_at=lot.expires_at,
        ),
        spent_on=[
            schemas.SpentOn(
                entry_id=use.transaction_id,
                points=use.points,
                rule=use.rule,
                reason=use.reason,
                reference=use.reference,
                created_at=use.created_at,
            )
            for use in await statement.read_uses_of_lot(session, account, entry_id)
        ],
        paid_from=[
            schemas.PaidFrom(lot_id=use.lot_id, points=use.points, rule=use.rule, earned_at=use.earned_at)
            for use in await statement.read_lots_used(session, account, entry_id)
        ],
    )


@router.post("/v1/users/{ref}/spend", summary="Spend points", responses=problems(404, 409))
async def spend_points(
    ref: Ref, caller: WriterDep, session: SessionDep, idempotency: KeyedDep, body: schemas.Spend
) -> schemas.Done:
    """Takes the points from the user's lots, whichever subject of his they belong to: what expires first, then what is
    oldest. 409 `insufficient_points` when there are fewer; then nothing has changed, and the same Idempotency-Key stays
    refused."""

    async def act(request: spending.Request) -> spending.Done:
        return await spending.spend(session, request, body.points, datetime.now(UTC))

    return await _change(session, caller, idempotency, ref, body, act)


@router.post("/v1/users/{ref}/adjustments", summary="Give or take points by hand", responses=problems(404, 409))
async def adjust_points(
    ref: Ref, caller: WriterDep, session: SessionDep, idempotency: KeyedDep, body: schemas.Adjust
) -> schemas.Done:
    """For goodwill and corrections, with a reason; the key that asked is kept. Never below 0: 409
    `insufficient_points`. Adjustments do not count for levels."""
    if not body.points:
        raise invalid("must not be 0", pointer="/points")

    async def act(request: spending.Request) -> spending.Done:
        return await spending.adjust(session, request, body.points, datetime.now(UTC))

    return await _change(session, caller, idempotency, ref, body, act)


async def _change(
    session: AsyncSession,
    caller: Caller,
    idempotency: Keyed,
    ref: str,
    body: schemas.Spend | schemas.Adjust,
    act: Callable[[spending.Request], Awaitable[spending.Done]],
) -> schemas.Done:
    request = spending.Request(
        account=caller.account.name,
        ref=ref,
        key=idempotency.request_id,
        reason=body.reason,
        reference=body.reference,
        made_by=caller.key_id,
        traceparent=current_traceparent(),
    )

    async def run() -> schemas.Done:
        try:
            return schemas.Done.model_validate(await act(request))
        except UnknownUserError:
            raise not_found(f"No event has named the user {ref}.", "unknown_user") from None
        except spending.InsufficientPointsError as error:
            raise conflict(
                f"The user has {error.balance} points; {error.wanted} are wanted.", "insufficient_points"
            ) from None

    return await idempotency.run(session, caller, body, run)


def _position(cursor: str | None) -> tuple[datetime, datetime, UUID] | None:
    if not cursor:
        return None
    first, second, entry_id = decode_cursor(cursor, (datetime, datetime, str))
    try:
        return first, second, UUID(entry_id)
    except ValueError:
        raise invalid("is not a cursor of this list", parameter="query/cursor") from None


def _entry(row: Any) -> dict[str, Any]:
    return {
        "entry_id": row.transaction_id,
        "points": row.points,
        "rule": row.rule,
        "rule_version": row.rule_version,
        "time": row.event_time,
        "created_at": row.created_at,
        "legs": [schemas.Leg(**leg) for leg in row.legs],
        "event": None
        if row.event_id is None
        else schemas.Cause(source=row.event_source, id=row.event_id, type=row.event_type, time=row.happened_at),
        "request_id": row.request_id,
        "made_by": row.made_by,
        "reason": row.reason,
        "reference": row.reference,
        "wanted": row.wanted,
    }
