"""The fold of order events. Pure: `merge` is commutative, associative and idempotent, so any order and repetition of
the same events gives the same state."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar

from libs.common.events import EVENT_TYPES, AnyEvent
from libs.common.events.orders import OrderEnriched, OrderEvent, OrderPaid, OrderRefunded

OrderKey = tuple[str, str, str]
"""(account, platform or '', order_id)"""
RefundKey = tuple[str, str, str]
"""(account, platform or '', refund_id)"""
Status = Literal["created", "paid", "shipped", "completed", "cancelled"]
"""How far an order has come, in this order; the furthest stands."""

ORDER_TYPES = frozenset(name for name, event_type in EVENT_TYPES.items() if event_type.topic == OrderEvent.topic)

RANKS: dict[str, int] = {"created": 1, "paid": 2, "shipped": 3, "completed": 4, "cancelled": 5}


class Said(NamedTuple):
    """Which event said something: the greatest one is believed."""

    rank: int
    time: datetime
    source: str
    id: str


NEVER = Said(-1, datetime.min.replace(tzinfo=UTC), "", "")


@dataclass(frozen=True, slots=True)
class Refund:
    """Money given back. `time` is that of its earliest event; `subject`, amount and currency are of its last one."""

    account: str
    platform: str
    refund_id: str
    order_id: str | None = None
    subject: str | None = None
    time: datetime | None = None
    amount_minor: int | None = None
    currency: str | None = None
    said: Said = NEVER

    @property
    def key(self) -> RefundKey:
        return self.account, self.platform, self.refund_id

    @property
    def order_key(self) -> OrderKey | None:
        """The order that it belongs to, None when no event names one."""
        return None if self.order_id is None else (self.account, self.platform, self.order_id)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a paid order brought. 0 <= refunded_minor <= gross_minor. Currency and amounts are unknown (None, 0) until
    a look-up has found them."""

    currency: str | None
    gross_minor: int
    refunded_minor: int
    paid_time: datetime

    @property
    def net_minor(self) -> int:
        return self.gross_minor - self.refunded_minor

    @property
    def counts(self) -> bool:
        """Whether it is one of the buyer's orders: a fully refunded one is not, one that cost nothing is."""
        return self.gross_minor == 0 or self.refunded_minor < self.gross_minor


@dataclass(frozen=True, slots=True)
class Order:
    """What is known of an order. `paid_time` None: no payment yet. `refunds` are sorted by key."""

    account: str
    platform: str
    order_id: str
    status: Status | None = None
    paid_time: datetime | None = None
    buyer: str | None = None
    buyer_said: Said = NEVER
    amount_minor: int | None = None
    currency: str | None = None
    amount_said: Said = NEVER
    refunds: tuple[Refund, ...] = ()

    @property
    def key(self) -> OrderKey:
        return self.account, self.platform, self.order_id

    def contribution(self, as_of: datetime | None = None) -> Contribution | None:
        """What it had brought by `as_of` (all that is known when None); None as long as it was not paid."""
        if self.paid_time is None or (as_of is not None and self.paid_time > as_of):
            return None
        gross = self.amount_minor or 0
        refunded = sum(
            refund.amount_minor or 0
            for refund in self.refunds
            if refund.currency == self.currency and (as_of is None or (refund.time or self.paid_time) <= as_of)
        )
        return Contribution(self.currency, gross, min(refunded, gross), self.paid_time)

    def movements(self) -> list[tuple[datetime, int]]:
        """When its net amount changed, and by how much, in time order; their sum is the net amount."""
        if self.paid_time is None:
            return []
        gross = self.amount_minor or 0
        moved = [(self.paid_time, gross)]
        left = gross
        for refund in sorted(self.refunds, key=lambda refund: (refund.time or NEVER.time, refund.key)):
            if refund.currency == self.currency:
                back = min(refund.amount_minor or 0, left)
                left -= back
                moved.append((max(refund.time or self.paid_time, self.paid_time), -back))
        return moved


Known = TypeVar("Known", Order, Refund)


def fold(events: Iterable[AnyEvent]) -> tuple[dict[OrderKey, Order], dict[RefundKey, Refund]]:
    """What `events` alone say of orders and of refunds; other events are passed over."""
    orders: dict[OrderKey, Order] = {}
    refunds: dict[RefundKey, Refund] = {}
    for event in events:
        # Without its content, which versions before orders were folded did not keep, an event says nothing here.
        if not isinstance(event, OrderEvent) or not hasattr(event.data, "order_id"):
            continue
        if isinstance(event, OrderRefunded):
            _add(refunds, _refund(event))
        if event.data.order_id is not None:
            _add(orders, _order(event, event.data.order_id))
    return orders, refunds


def merge(one: Order, other: Order) -> Order:
    """What two states of the same order say together, refunds aside."""
    buyer = max(one, other, key=lambda order: order.buyer_said)
    amount = max(one, other, key=lambda order: order.amount_said)
    return replace(
        one,
        status=max((one.status, other.status), key=lambda status: RANKS.get(status or "", 0)),
        paid_time=_earliest(one.paid_time, other.paid_time),
        buyer=buyer.buyer,
        buyer_said=buyer.buyer_said,
        amount_minor=amount.amount_minor,
        currency=amount.currency,
        amount_said=amount.amount_said,
    )


def merge_refunds(one: Refund, other: Refund) -> Refund:
    """What two states of the same refund say together."""
    last = max(one, other, key=lambda refund: refund.said)
    return replace(
        last,
        # A refund has one order. Should two be named, one of them has to be taken, whichever came first.
        order_id=max(filter(None, (one.order_id, other.order_id)), default=None),
        time=_earliest(one.time, other.time),
    )


def _add(known: dict[tuple[str, str, str], Known], said: Known) -> None:
    before = known.get(said.key)
    if before is None:
        known[said.key] = said
    elif isinstance(said, Order):
        assert isinstance(before, Order)
        known[said.key] = merge(before, said)
    else:
        assert isinstance(before, Refund)
        known[said.key] = merge_refunds(before, said)


def _order(event: OrderEvent, order_id: str) -> Order:
    data = event.data
    enriched, paid, refund = (isinstance(event, kind) for kind in (OrderEnriched, OrderPaid, OrderRefunded))
    buyer = event.data.buyer if isinstance(event, OrderEnriched) else event.subject
    tells_amount = data.amount_minor is not None and not refund
    status = event.type.removeprefix("order.")
    return Order(
        account=event.account,
        platform=event.platform or "",
        order_id=order_id,
        status=status if status in RANKS else None,  # type: ignore[arg-type]
        paid_time=(event.data.paid_at or event.time) if isinstance(event, OrderPaid) else None,
        buyer=buyer,
        buyer_said=_said(event, 2 if enriched else int(not refund)) if buyer is not None else NEVER,
        amount_minor=data.amount_minor if tells_amount else None,
        currency=data.currency if tells_amount else None,
        amount_said=_said(event, 2 if paid else int(enriched)) if tells_amount else NEVER,
    )


def _refund(event: OrderRefunded) -> Refund:
    whole = event.data.amount_minor is not None
    return Refund(
        account=event.account,
        platform=event.platform or "",
        refund_id=event.data.refund_id,
        order_id=event.data.order_id,
        subject=event.subject if whole else None,
        time=event.time,
        amount_minor=event.data.amount_minor,
        currency=event.data.currency,
        said=_said(event, 0) if whole else NEVER,
    )


def _said(event: OrderEvent, rank: int) -> Said:
    return Said(rank, event.time, event.source, event.id)


def _earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((time for time in (one, other) if time is not None), default=None)
