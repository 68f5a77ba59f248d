"""The value portrait 价值画像: what a person has bought, over all his subjects. Pure; money in minor units."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from fractions import Fraction

from libs.common.days import local_day
from libs.common.orders.domain import Contribution, Order, Refund


@dataclass(slots=True)
class Money:
    """Orders and refunds in one currency. Refunds that name no order count too, so `net_minor` may be negative."""

    currency: str
    orders: int = 0
    refunded_orders: int = 0
    gross_minor: int = 0
    refunds: int = 0
    refunded_minor: int = 0

    @property
    def net_minor(self) -> int:
        return self.gross_minor - self.refunded_minor

    @property
    def average_minor(self) -> int | None:
        """Gross per order, rounded half up."""
        return (2 * self.gross_minor + self.orders) // (2 * self.orders) if self.orders else None


@dataclass(slots=True)
class Value:
    """`days_between`: whole days from each day with orders to the next such day, on average; None with fewer than two.
    `without_amount`: paid orders whose amount no event has told yet."""

    currencies: list[Money] = field(default_factory=list)
    orders: int = 0
    without_amount: int = 0
    first_order: datetime | None = None
    last_order: datetime | None = None
    days_between: Fraction | None = None


def appraise(orders: Iterable[Order], refunds: Iterable[Refund], zone: tzinfo, as_of: datetime | None = None) -> Value:
    """Sum up paid orders, and refunds that name no order, as they stood at `as_of` (all that is known when None)."""
    money: dict[str, Money] = {}
    value = Value()
    days: set[date] = set()
    for order in orders:
        found = order.contribution(as_of)
        if found is None:
            continue
        value.orders += 1
        value.first_order = min(value.first_order or found.paid_time, found.paid_time)
        value.last_order = max(value.last_order or found.paid_time, found.paid_time)
        days.add(local_day(found.paid_time, zone))
        if found.currency is None:
            value.without_amount += 1
        else:
            _add_order(money.setdefault(found.currency, Money(found.currency)), order, found, as_of)
    for refund in refunds:
        if refund.currency is not None and (as_of is None or (refund.time is not None and refund.time <= as_of)):
            of_currency = money.setdefault(refund.currency, Money(refund.currency))
            of_currency.refunds += 1
            of_currency.refunded_minor += refund.amount_minor or 0
    value.currencies = [money[currency] for currency in sorted(money)]
    if len(days) > 1:
        value.days_between = Fraction((max(days) - min(days)).days, len(days) - 1)
    return value


def _add_order(money: Money, order: Order, found: Contribution, as_of: datetime | None) -> None:
    money.orders += 1
    money.refunded_orders += not found.counts
    money.gross_minor += found.gross_minor
    money.refunded_minor += found.refunded_minor
    money.refunds += sum(
        refund.currency == found.currency and (as_of is None or (refund.time or found.paid_time) <= as_of)
        for refund in order.refunds
    )
