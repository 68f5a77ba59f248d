"""What was booked, read back: balances, statements, lots, and the reasons of one entry."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.rewards.domain.awards import END


async def read_balance(session: AsyncSession, account: str, subjects: Collection[str]) -> int:
    """Points of all `subjects` together."""
    points = await session.scalar(
        text(
            "select cast(coalesce(sum(b.points), 0) as bigint)"
            " from holder h join balance b using (account, account_ref)"
            " where h.account = :account and h.subject = any(cast(:subjects as text[]))"
        ),
        {"account": account, "subjects": list(subjects)},
    )
    return int(points or 0)


async def read_totals(
    session: AsyncSession, account: str, subjects: Collection[str], known_at: datetime | None
) -> list[tuple[str, int, int]]:
    """(rule, points, number of entries) of what had been booked for `subjects` by `known_at`, ordered by rule."""
    rows = await session.execute(
        text(
            "select e.rule, cast(sum(e.points) as bigint) as points, count(*) as entries"
            " from holder h join ledger_entry e using (account, account_ref)"
            " where h.account = :account and h.subject = any(cast(:subjects as text[]))"
            " and (cast(:known_at as timestamptz) is null or e.created_at <= :known_at) group by e.rule order by e.rule"
        ),
        {"account": account, "subjects": list(subjects), "known_at": known_at},
    )
    return [(row.rule, row.points, row.entries) for row in rows]


_TRANSACTION = (
    "t.transaction_id, t.points, t.rule, t.rule_version, t.request_id, t.event_time, t.reference, t.reason, t.wanted,"
    " t.made_by, t.created_at, v.source as event_source, v.id as event_id, v.type as event_type,"
    " v.time as happened_at, l.legs"
)
_EVENT_AND_LEGS = (
    " left join event v on v.digest = t.event_digest"
    " cross join lateral (select json_agg(json_build_object("
    "'book', e.book, 'subject', h.subject, 'points', e.points) order by e.leg) as legs"
    " from ledger_entry e left join holder h on h.account = e.account and h.account_ref = e.account_ref"
    " where e.account = :account and e.transaction_id = t.transaction_id) l"
)


async def page_ledger(
    session: AsyncSession,
    account: str,
    subjects: Collection[str],
    before: tuple[datetime, datetime, UUID] | None,
    limit: int,
) -> list[Any]:
    """Transactions that touch the wallets of `subjects`, with what these got or gave, the events that caused them and
    all legs; newest first, older than `before` (created_at, event_time, transaction_id); up to `limit`."""
    rows = await session.execute(
        text(
            f"select {_TRANSACTION} from ("
            " select e.transaction_id, cast(sum(e.points) as bigint) as points, e.rule, e.rule_version, e.event_digest,"
            " e.request_id, e.event_time, e.reference, e.reason, e.wanted, e.made_by, e.created_at"
            " from holder h cross join lateral ("
            " select * from ledger_entry l where l.account = h.account and l.account_ref = h.account_ref"
            " and (cast(:created_at as timestamptz) is null or (l.created_at, l.event_time, l.transaction_id)"
            " < (:created_at, cast(:event_time as timestamptz), cast(:transaction_id as uuid)))"
            " order by l.created_at desc, l.event_time desc, l.transaction_id desc limit :limit) e"
            " where h.account = :account and h.subject = any(cast(:subjects as text[]))"
            " group by e.transaction_id, e.rule, e.rule_version, e.event_digest, e.request_id, e.event_time,"
            " e.reference, e.reason, e.wanted, e.made_by, e.created_at"
            " order by e.created_at desc, e.event_time desc, e.transaction_id desc limit :limit"
            f") t {_EVENT_AND_LEGS} order by t.created_at desc, t.event_time desc, t.transaction_id desc"
        ),
        {
            "account": account,
            "subjects": list(subjects),
            "created_at": before[0] if before else None,
            "event_time": before[1] if before else None,
            "transaction_id": before[2] if before else None,
            "limit": limit,
        },
    )
    return list(rows.all())


async def read_transaction(session: AsyncSession, account: str, transaction_id: UUID) -> Any | None:
    """One transaction with what all its wallets together got or gave; None when there is none."""
    rows = await session.execute(
        text(
            f"select {_TRANSACTION} from ("
            " select transaction_id, cast(sum(points) filter (where book = 'wallet') as bigint) as points, rule,"
            " rule_version, event_digest, request_id, event_time, reference, max(reason) as reason,"
            " max(wanted) as wanted, made_by, created_at"
            " from ledger_entry where account = :account and transaction_id = :transaction_id"
            " group by transaction_id, rule, rule_version, event_digest, request_id, event_time, reference, made_by,"
            f" created_at) t {_EVENT_AND_LEGS}"
        ),
        {"account": account, "transaction_id": transaction_id},
    )
    return rows.one_or_none()


async def read_lots_used(session: AsyncSession, account: str, transaction_id: UUID) -> list[Any]:
    """The lots that paid a transaction: how much, and which entry had granted each."""
    rows = await session.execute(
        text(
            "select u.lot_id, u.points, o.earned_at, e.rule from lot_use u"
            " join lot o on o.account = u.account and o.lot_id = u.lot_id"
            " join ledger_entry e on e.account = u.account and e.transaction_id = u.lot_id and e.leg = 0"
            " where u.account = :account and u.transaction_id = :transaction_id"
            " order by coalesce(o.expires_at, 'infinity'), o.earned_at, o.lot_id"
        ),
        {"account": account, "transaction_id": transaction_id},
    )
    return list(rows.all())


async def read_lot(session: AsyncSession, account: str, lot_id: UUID) -> Any | None:
    """The lot that a transaction granted, if it did."""
    rows = await session.execute(
        text(
            "select lot_id, granted, remaining, earned_at, spendable_from, expires_at from lot"
            " where account = :account and lot_id = :lot_id"
        ),
        {"account": account, "lot_id": lot_id},
    )
    return rows.one_or_none()


async def read_uses_of_lot(session: AsyncSession, account: str, lot_id: UUID) -> list[Any]:
    """What a lot was spent on: transaction, points, rule, reason, reference, when."""
    rows = await session.execute(
        text(
            "select u.transaction_id, u.points, e.rule, e.reason, e.reference, e.created_at from lot_use u"
            " join ledger_entry e on e.account = u.account and e.transaction_id = u.transaction_id and e.leg = 0"
            " where u.account = :account and u.lot_id = :lot_id order by e.created_at, u.transaction_id"
        ),
        {"account": account, "lot_id": lot_id},
    )
    return list(rows.all())


async def page_lots(
    session: AsyncSession,
    account: str,
    subjects: Collection[str],
    after: tuple[datetime, datetime, UUID] | None,
    limit: int,
    *,
    empty: bool,
) -> list[Any]:
    """Lots of `subjects` in the order in which they are spent, after (expiry or the end of time, earned_at, lot id);
    `empty` ones too, if wanted."""
    rows = await session.execute(
        text(
            "select o.lot_id, o.granted, o.remaining, o.earned_at, o.spendable_from, o.expires_at, h.subject, e.rule,"
            " coalesce(o.expires_at, cast(:never as timestamptz)) as ends_at from holder h"
            " join lot o on o.account = h.account and o.account_ref = h.account_ref"
            " join ledger_entry e on e.account = o.account and e.transaction_id = o.lot_id and e.leg = 0"
            " where h.account = :account and h.subject = any(cast(:subjects as text[]))"
            " and (:empty or o.remaining > 0)"
            " and (cast(:earned_at as timestamptz) is null"
            " or (coalesce(o.expires_at, cast(:never as timestamptz)), o.earned_at, o.lot_id)"
            " > (cast(:ends_at as timestamptz), cast(:earned_at as timestamptz), cast(:lot_id as uuid)))"
            " order by ends_at, o.earned_at, o.lot_id limit :limit"
        ),
        {
            "account": account,
            "subjects": list(subjects),
            "never": END,
            "ends_at": after[0] if after else None,
            "earned_at": after[1] if after else None,
            "lot_id": after[2] if after else None,
            "empty": empty,
            "limit": limit,
        },
    )
    return list(rows.all())
