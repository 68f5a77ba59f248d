"""Booking: entries, lots and balances change together, and only here."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.rewards.domain.awards import Award, Window
from services.rewards.store.holders import Locked

Book = Literal["spent", "adjusted"]
"""The program's own side of a transaction over REST; what is earned comes from `issued`."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Points after all entries, growth value that they brought, and the number of entries."""

    points: int
    growth: int
    revision: int


NOTHING = Balance(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Transaction:
    """A change over REST: what it is called in the ledger, why it is made, by which request and key."""

    account: str
    transaction_id: UUID
    rule: str
    book: Book
    request_id: str
    reason: str
    reference: str | None
    made_by: str


@dataclass(frozen=True, slots=True)
class Paid:
    """What one lot paid."""

    lot_id: UUID
    account_ref: UUID
    points: int


async def read_used(session: AsyncSession, windows: Collection[Window], locked: Locked) -> dict[Window, int]:
    """Points that users got by a rule within windows of time; one statement."""
    if not windows:
        return {}
    ordered = sorted(windows)
    parts = [
        (number, window.account, locked.ref(holder), window.rule, window.start, window.end)
        for number, window in enumerate(ordered)
        for holder in locked.of_user[window.account, window.user_id]
    ]
    rows = await session.execute(
        text(
            "select n.number, cast(sum(e.points) as bigint) as points"
            " from unnest(cast(:number as int[]), cast(:account as text[]), cast(:ref as uuid[]),"
            " cast(:rule as text[]), cast(:start as timestamptz[]), cast(:stop as timestamptz[]))"
            " as n(number, account, ref, rule, start, stop)"
            " join ledger_entry e on e.account = n.account and e.account_ref = n.ref and e.rule = n.rule"
            " and e.event_time >= n.start and e.event_time < n.stop"
            " group by n.number"
        ),
        _columns(("number", "account", "ref", "rule", "start", "stop"), parts),
    )
    return {ordered[row.number]: row.points for row in rows}


async def add_awards(session: AsyncSession, awards: Sequence[Award], locked: Locked, now: datetime) -> list[Award]:
    """Book `awards`: a leg in the wallet, one in `issued`, and a lot each. Returns those that were not booked before.
    Two statements."""
    rows = await session.execute(
        text(
            "insert into ledger_entry (account, transaction_id, leg, book, account_ref, points, growth, rule,"
            " rule_version, event_digest, event_time, reference, reason, wanted, created_at)"
            " select account, transaction_id, leg, case leg when 0 then 'wallet' else 'issued' end,"
            " case leg when 0 then account_ref end, case leg when 0 then points else -points end,"
            " case leg when 0 then growth else 0 end, rule, rule_version, event_digest, event_time, reference, reason,"
            " wanted, :now"
            " from unnest(cast(:account as text[]), cast(:transaction_id as uuid[]), cast(:account_ref as uuid[]),"
            " cast(:points as bigint[]), cast(:growth as bigint[]), cast(:rule as text[]),"
            " cast(:rule_version as int[]),"
            " cast(:event_digest as bytea[]), cast(:event_time as timestamptz[]), cast(:reference as text[]),"
            " cast(:reason as text[]), cast(:wanted as bigint[]))"
            " as n(account, transaction_id, account_ref, points, growth, rule, rule_version, event_digest, event_time,"
            " reference, reason, wanted) cross join (values (0), (1)) as l(leg)"
            " on conflict do nothing returning transaction_id"
        ),
        {
            "now": now,
            "account": [award.deed.event.account for award in awards],
            "transaction_id": [award.transaction_id for award in awards],
            "account_ref": [locked.ref(award.deed.holder) for award in awards],
            "points": [award.points for award in awards],
            "growth": [award.growth for award in awards],
            "rule": [award.rule.key for award in awards],
            "rule_version": [award.rule.version for award in awards],
            "event_digest": [award.deed.digest for award in awards],
            "event_time": [award.deed.time for award in awards],
            "reference": [award.deed.reference for award in awards],
            "reason": [f"cap_{award.capped_by}" if award.capped_by else None for award in awards],
            "wanted": [award.wanted if award.capped_by else None for award in awards],
        },
    )
    new = set(rows.scalars())
    booked = [award for award in awards if award.transaction_id in new]
    await add_lots(
        session,
        [
            (
                award.deed.event.account,
                award.transaction_id,
                locked.ref(award.deed.holder),
                award.points,
                award.deed.time,
            )
            for award in booked
            if award.points
        ],
        now,
    )
    return booked


async def add_lots(session: AsyncSession, lots: Sequence[tuple[str, UUID, UUID, int, datetime]], now: datetime) -> None:
    """Lots of (account, lot id, account_ref, points, earned at), to be spent from now on; one statement."""
    if not lots:
        return
    await session.execute(
        text(
            "insert into lot (account, lot_id, account_ref, granted, remaining, earned_at, spendable_from)"
            " select account, lot_id, account_ref, points, points, earned_at, :now"
            " from unnest(cast(:account as text[]), cast(:lot_id as uuid[]), cast(:account_ref as uuid[]),"
            " cast(:points as bigint[]), cast(:earned_at as timestamptz[]))"
            " as n(account, lot_id, account_ref, points, earned_at)"
        ),
        {"now": now, **_columns(("account", "lot_id", "account_ref", "points", "earned_at"), lots)},
    )


async def add_to_balances(
    session: AsyncSession, changes: Mapping[tuple[str, UUID], Balance]
) -> dict[tuple[str, UUID], Balance]:
    """Add points, growth and number of entries of (account, account_ref) to the balances, and return these as they are
    then; one statement."""
    keys = list(changes)
    rows = await session.execute(
        text(
            "insert into balance as b (account, account_ref, points, growth, revision)"
            " select * from unnest(cast(:account as text[]), cast(:account_ref as uuid[]), cast(:points as bigint[]),"
            " cast(:growth as bigint[]), cast(:revision as bigint[]))"
            " on conflict (account, account_ref) do update set points = b.points + excluded.points,"
            " growth = b.growth + excluded.growth, revision = b.revision + excluded.revision"
            " returning account, account_ref, points, growth, revision"
        ),
        {
            "account": [key[0] for key in keys],
            "account_ref": [key[1] for key in keys],
            "points": [changes[key].points for key in keys],
            "growth": [changes[key].growth for key in keys],
            "revision": [changes[key].revision for key in keys],
        },
    )
    return {(row.account, row.account_ref): Balance(row.points, row.growth, row.revision) for row in rows}


async def read_balances(session: AsyncSession, holders: Iterable[tuple[str, UUID]]) -> dict[tuple[str, UUID], Balance]:
    """The balances of (account, account_ref) that have any entries; one statement."""
    keys = list(holders)
    if not keys:
        return {}
    rows = await session.execute(
        text(
            "select b.account, b.account_ref, b.points, b.growth, b.revision from balance b"
            " join unnest(cast(:account as text[]), cast(:account_ref as uuid[])) as n(account, account_ref)"
            " on b.account = n.account and b.account_ref = n.account_ref"
        ),
        _columns(("account", "account_ref"), keys),
    )
    return {(row.account, row.account_ref): Balance(row.points, row.growth, row.revision) for row in rows}


async def pay(
    session: AsyncSession, account: str, transaction_id: UUID, refs: Collection[UUID], points: int
) -> list[Paid]:
    """Take `points` from the lots of the wallets `refs`, what expires first and then what is oldest first, and record
    what each paid. The wallets hold enough. One statement."""
    rows = await session.execute(
        text(
            "with open as ("
            " select lot_id, account_ref, remaining,"
            " sum(remaining) over (order by coalesce(expires_at, 'infinity'), earned_at, lot_id) as upto"
            " from lot where account = :account and account_ref = any(cast(:refs as uuid[])) and remaining > 0"
            "), paying as ("
            " select lot_id, account_ref,"
            " cast(least(remaining, cast(:points as bigint) - (upto - remaining)) as bigint) as points"
            " from open where upto - remaining < :points"
            "), spent as ("
            " update lot l set remaining = l.remaining - p.points from paying p"
            " where l.account = :account and l.lot_id = p.lot_id"
            "), used as ("
            " insert into lot_use (account, transaction_id, lot_id, points)"
            " select :account, cast(:transaction_id as uuid), lot_id, points from paying"
            ") select lot_id, account_ref, points from paying order by lot_id"
        ),
        {"account": account, "transaction_id": transaction_id, "refs": list(refs), "points": points},
    )
    return [Paid(row.lot_id, row.account_ref, row.points) for row in rows]


async def add_transaction(
    session: AsyncSession, made: Transaction, wallets: Mapping[UUID, int], now: datetime
) -> dict[tuple[str, UUID], Balance]:
    """Book a change over REST: a leg for each wallet and one in the program's book, and the balances, which are
    returned. Two statements."""
    legs = [("wallet", ref, points) for ref, points in wallets.items()]
    legs.append((made.book, None, -sum(wallets.values())))  # type: ignore[arg-type]
    await session.execute(
        text(
            "insert into ledger_entry (account, transaction_id, leg, book, account_ref, points, growth, rule,"
            " rule_version, request_id, event_time, reference, reason, made_by, created_at)"
            " select cast(:account as text), cast(:transaction_id as uuid), leg, book, account_ref, points, 0,"
            " cast(:rule as text), 1, cast(:request_id as text), cast(:now as timestamptz), cast(:reference as text),"
            " cast(:reason as text), cast(:made_by as text), cast(:now as timestamptz)"
            " from unnest(cast(:leg as smallint[]), cast(:book as text[]), cast(:account_ref as uuid[]),"
            " cast(:points as bigint[])) as n(leg, book, account_ref, points)"
        ),
        {
            "account": made.account,
            "transaction_id": made.transaction_id,
            "rule": made.rule,
            "request_id": made.request_id,
            "reference": made.reference,
            "reason": made.reason,
            "made_by": made.made_by,
            "now": now,
            "leg": list(range(len(legs))),
            **_columns(("book", "account_ref", "points"), legs),
        },
    )
    rows = await session.execute(
        text(
            # A row that is not there yet can only be added to.
            "with n as (select * from unnest(cast(:account_ref as uuid[]), cast(:points as bigint[]))"
            " as n(account_ref, points)), changed as ("
            " update balance b set points = b.points + n.points, revision = b.revision + 1 from n"
            " where b.account = :account and b.account_ref = n.account_ref returning b.*"
            "), made as ("
            " insert into balance (account, account_ref, points, growth, revision)"
            " select :account, account_ref, points, 0, 1 from n where not exists ("
            " select 1 from balance b where b.account = :account and b.account_ref = n.account_ref) returning *"
            ") select * from changed union all select * from made"
        ),
        {"account": made.account, "account_ref": list(wallets), "points": list(wallets.values())},
    )
    return {(row.account, row.account_ref): Balance(row.points, row.growth, row.revision) for row in rows}


async def recount_balances(session: AsyncSession) -> None:
    """Fill the empty table of balances from the entries; one statement."""
    await session.execute(
        text(
            "insert into balance (account, account_ref, points, growth, revision)"
            " select account, account_ref, sum(points), sum(growth), count(*) from ledger_entry"
            " where account_ref is not null group by account, account_ref"
        )
    )


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}
