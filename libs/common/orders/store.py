"""Orders in PostgreSQL. The number of statements does not depend on the number of events."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import AnyEvent
from libs.common.orders import domain
from libs.common.orders.domain import NEVER, Order, OrderKey, Refund, RefundKey, Said

SubjectKey = tuple[str, str]
"""(account, subject)"""


@dataclass(frozen=True, slots=True)
class Changed:
    """An order before (None: nothing was known of it) and after a batch, refunds included."""

    before: Order | None
    after: Order


@dataclass(frozen=True, slots=True)
class Folded:
    """What a batch changed: orders in key order, and refunds that name no order (before, after)."""

    orders: list[Changed] = field(default_factory=list)
    refunds: list[tuple[Refund | None, Refund]] = field(default_factory=list)

    def subjects(self) -> set[SubjectKey]:
        """Whose purchases may have changed: buyers before and after, and who got a refund without an order."""
        orders = [order for changed in self.orders for order in (changed.before, changed.after) if order]
        refunds = [refund for pair in self.refunds for refund in pair if refund]
        return {(order.account, order.buyer) for order in orders if order.buyer} | {
            (refund.account, refund.subject) for refund in refunds if refund.subject
        }


@dataclass(frozen=True, slots=True)
class Purchases:
    """The paid orders of a subject, and his refunds that name no order."""

    orders: list[Order] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)


ORDER = {
    "account": "text",
    "platform": "text",
    "order_id": "text",
    "status": "text",
    "paid_time": "timestamptz",
    "buyer": "text",
    "buyer_rank": "smallint",
    "buyer_time": "timestamptz",
    "buyer_source": "text",
    "buyer_id": "text",
    "amount_minor": "bigint",
    "currency": "text",
    "amount_rank": "smallint",
    "amount_time": "timestamptz",
    "amount_source": "text",
    "amount_id": "text",
}
REFUND = {
    "account": "text",
    "platform": "text",
    "refund_id": "text",
    "order_id": "text",
    "subject": "text",
    "time": "timestamptz",
    "amount_minor": "bigint",
    "currency": "text",
    "said_rank": "smallint",
    "said_time": "timestamptz",
    "said_source": "text",
    "said_id": "text",
}


async def fold_orders(session: AsyncSession, events: Iterable[AnyEvent]) -> Folded:
    """Add what `events` say to the orders and refunds that they name.

    Rows are locked in key order, orders first, until the transaction ends: of two transactions of one order the later
    one goes on from where the earlier one ended. Whoever reads a user's purchases after that, under a lock of his own,
    misses nothing.
    """
    said_orders, said_refunds = domain.fold(events)
    if not said_orders and not said_refunds:
        return Folded()
    orders = await _lock(session, "order_state", ORDER, _order, said_orders)
    refunds = await _lock(session, "refund_state", REFUND, _refund, said_refunds)
    after_refunds = {key: domain.merge_refunds(refunds[key], said) for key, said in said_refunds.items()}

    # An event that names no order may be about a refund whose order another event has named before.
    named = {refund.order_key for refund in (*refunds.values(), *after_refunds.values()) if refund.order_key}
    if others := named - orders.keys():
        orders |= await _lock(session, "order_state", ORDER, _order, others)

    attached = await _read_refunds_of(session, orders)
    refunds_before, refunds_after = _by_order(attached), _by_order({**attached, **after_refunds})
    old = {key: refund for key, refund in refunds.items() if refund != Refund(*key)}
    changed = []
    for key in sorted(orders):
        before = replace(orders[key], refunds=refunds_before.get(key, ()))
        said = said_orders.get(key)
        merged = domain.merge(orders[key], said) if said else orders[key]
        after = replace(merged, refunds=refunds_after.get(key, ()))
        if after != before:
            changed.append(Changed(None if before == Order(*key) else before, after))

    await _write(session, "order_state", ORDER, [_order_row(change.after) for change in changed])
    written = [refund for key, refund in sorted(after_refunds.items()) if refund != refunds[key]]
    await _write(session, "refund_state", REFUND, [_refund_row(refund) for refund in written])
    loose = [
        (old.get(refund.key), refund)
        for refund in written
        if refund.order_id is None or (refund.key in old and old[refund.key].order_id is None)
    ]
    return Folded(changed, loose)


async def read_paid(
    session: AsyncSession, subjects: Collection[SubjectKey], as_of: datetime | None = None
) -> dict[SubjectKey, Purchases]:
    """What each (account, subject) has bought: orders paid and refunds made by `as_of`, everything when None. Subjects
    without any are left out. Two statements."""
    wanted = {**_arrays(("account", "subject"), sorted(subjects)), "as_of": as_of}
    found: dict[SubjectKey, Purchases] = {}
    rows = await session.execute(
        text(
            f"select {_list(ORDER, 'o')} from order_state o"
            " join unnest(cast(:account as text[]), cast(:subject as text[])) as n(account, subject)"
            " on n.account = o.account and n.subject = o.buyer where o.paid_time is not null"
            " and (cast(:as_of as timestamptz) is null or o.paid_time <= :as_of)"
        ),
        wanted,
    )
    orders = [_order(row) for row in rows]
    rows = await session.execute(
        text(
            f"select {_list(REFUND, 'r')} from refund_state r"
            " join unnest(cast(:account as text[]), cast(:subject as text[])) as n(account, subject)"
            " on n.account = r.account and n.subject = r.subject where r.order_id is null"
            " and (cast(:as_of as timestamptz) is null or r.time <= :as_of)"
            f" union all select {_list(REFUND, 'r')} from refund_state r"
            " join unnest(cast(:order_account as text[]), cast(:platform as text[]), cast(:order_id as text[]))"
            " as n(account, platform, order_id)"
            " on n.account = r.account and n.platform = r.platform and n.order_id = r.order_id"
            " where cast(:as_of as timestamptz) is null or r.time <= :as_of"
        ),
        {**wanted, **_arrays(("order_account", "platform", "order_id"), sorted(order.key for order in orders))},
    )
    refunds = [_refund(row) for row in rows]
    attached = {refund.key: refund for refund in refunds if refund.order_id is not None}
    by_order = _by_order(attached)
    for order in sorted(orders, key=lambda order: order.key):
        assert order.buyer is not None
        whole = replace(order, refunds=by_order.get(order.key, ()))
        found.setdefault((order.account, order.buyer), Purchases()).orders.append(whole)
    for refund in sorted(refunds, key=lambda refund: refund.key):
        if refund.order_id is None and refund.subject is not None:
            found.setdefault((refund.account, refund.subject), Purchases()).refunds.append(refund)
    return found


async def _lock(
    session: AsyncSession, table: str, columns: Mapping[str, str], read: Any, keys: Collection[OrderKey]
) -> dict[OrderKey, Any]:
    """The rows with these keys, made where there is none, locked in key order."""
    if not keys:
        return {}
    names = list(columns)[:3]
    wanted = _arrays(names, sorted(keys))
    source = f"unnest({', '.join(f'cast(:{name} as text[])' for name in names)}) as n({', '.join(names)})"
    ordered = ", ".join(f't.{name} collate "C"' for name in names)
    await session.execute(
        text(f"insert into {table} ({', '.join(names)}) select * from {source} on conflict do nothing"), wanted
    )
    rows = await session.execute(
        text(
            f"select {_list(columns, 't')} from {table} t join {source}"
            f" on {' and '.join(f'n.{name} = t.{name}' for name in names)}"
            f" order by {ordered} for update of t"
        ),
        wanted,
    )
    return {state.key: state for state in map(read, rows)}


async def _read_refunds_of(session: AsyncSession, orders: Iterable[OrderKey]) -> dict[RefundKey, Refund]:
    rows = await session.execute(
        text(
            f"select {_list(REFUND, 'r')} from refund_state r"
            " join unnest(cast(:account as text[]), cast(:platform as text[]), cast(:order_id as text[]))"
            " as n(account, platform, order_id)"
            " on n.account = r.account and n.platform = r.platform and n.order_id = r.order_id"
        ),
        _arrays(("account", "platform", "order_id"), sorted(orders)),
    )
    return {refund.key: refund for refund in map(_refund, rows)}


async def _write(
    session: AsyncSession, table: str, columns: Mapping[str, str], rows: Sequence[tuple[Any, ...]]
) -> None:
    if not rows:
        return
    names = list(columns)
    arrays = ", ".join(f"cast(:{name} as {kind}[])" for name, kind in columns.items())
    await session.execute(
        text(
            f"update {table} t set {', '.join(f'{name} = n.{name}' for name in names[3:])}"
            f" from unnest({arrays}) as n({', '.join(names)})"
            f" where {' and '.join(f'n.{name} = t.{name}' for name in names[:3])}"
        ),
        _arrays(names, rows),
    )


def _by_order(refunds: Mapping[RefundKey, Refund]) -> dict[OrderKey, tuple[Refund, ...]]:
    grouped: dict[OrderKey, tuple[Refund, ...]] = {}
    for _, refund in sorted(refunds.items()):
        if refund.order_key is not None:
            grouped[refund.order_key] = (*grouped.get(refund.order_key, ()), refund)
    return grouped


def _order(row: Any) -> Order:
    return Order(*(*row[:6], _said(row[6:10]), *row[10:12], _said(row[12:16])))


def _refund(row: Any) -> Refund:
    return Refund(*(*row[:8], _said(row[8:12])))


def _order_row(order: Order) -> tuple[Any, ...]:
    return (
        *(order.account, order.platform, order.order_id, order.status, order.paid_time),
        *(order.buyer, *_row(order.buyer_said), order.amount_minor, order.currency, *_row(order.amount_said)),
    )


def _refund_row(refund: Refund) -> tuple[Any, ...]:
    return (
        *(refund.account, refund.platform, refund.refund_id, refund.order_id, refund.subject, refund.time),
        *(refund.amount_minor, refund.currency, *_row(refund.said)),
    )


def _said(values: Any) -> Said:
    return NEVER if values[0] is None else Said(*values)


def _row(said: Said) -> tuple[Any, ...]:
    return (None,) * 4 if said == NEVER else tuple(said)


def _list(columns: Iterable[str], table: str) -> str:
    return ", ".join(f"{table}.{name}" for name in columns)


def _arrays(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Rows turned into one array a column, for unnest."""
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}
