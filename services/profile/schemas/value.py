"""The value portrait 价值画像."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import Currency
from services.profile.domain import value as domain

EXAMPLE: dict[str, Any] = {
    "currencies": [
        {
            "currency": "CNY",
            "orders": 3,
            "refunded_orders": 1,
            "gross_minor": 29700,
            "refunds": 1,
            "refunded_minor": 9900,
            "net_minor": 19800,
            "average_minor": 9900,
        }
    ],
    "orders": 3,
    "orders_without_amount": 0,
    "first_order": "2026-06-01T08:00:00Z",
    "last_order": "2026-06-15T12:30:00Z",
    "days_between_orders": 7.0,
}


class Money(BaseModel):
    """What was bought in one currency, in minor units (fen, cents)."""

    currency: Currency
    orders: int = Field(description="Paid orders.")
    refunded_orders: int = Field(description="Those of them that were refunded in full.")
    gross_minor: int = Field(description="What the orders cost.")
    refunds: int = Field(description="Refunds, also such as name no order.")
    refunded_minor: int
    net_minor: int = Field(
        description="gross − refunded; negative when refunds without an order are more than was bought."
    )
    average_minor: int | None = Field(description="gross per order, rounded; null without an order.")


class Value(BaseModel):
    """What a fan has bought, over all his subjects."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    currencies: list[Money] = Field(description="By currency code.")
    orders: int = Field(description="Paid orders of all currencies.")
    orders_without_amount: int = Field(description="Those of them of which no event has told the amount yet.")
    first_order: datetime | None = Field(description="When the first was paid.")
    last_order: datetime | None
    days_between_orders: float | None = Field(
        description="Days from one day with orders to the next, on average, in the account's zone; null with fewer "
        "than two such days."
    )

    @classmethod
    def of(cls, value: domain.Value) -> "Value":
        """As an answer."""
        return cls(
            currencies=[
                Money(
                    currency=money.currency,
                    orders=money.orders,
                    refunded_orders=money.refunded_orders,
                    gross_minor=money.gross_minor,
                    refunds=money.refunds,
                    refunded_minor=money.refunded_minor,
                    net_minor=money.net_minor,
                    average_minor=money.average_minor,
                )
                for money in value.currencies
            ],
            orders=value.orders,
            orders_without_amount=value.without_amount,
            first_order=value.first_order,
            last_order=value.last_order,
            days_between_orders=None if value.days_between is None else round(float(value.days_between), 2),
        )


class ValueAsOf(Value):
    """The same, at an instant."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"user_id": "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz", "as_of": "2026-06-30T00:00:00Z", **EXAMPLE}
        }
    )

    user_id: str
    as_of: datetime
