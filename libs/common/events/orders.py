"""Order events. A thin one carries neither buyer nor amount: the platform's look-up adds them later."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from libs.common.events.envelope import Data, Event
from libs.common.events.fields import Count, Currency, EventTime, Id, Money, Positive, Subject, Text


class OrderItem(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(extra="allow")
    product_id: Id
    quantity: Positive
    price_minor: Money = Field(description="Price of one piece in minor units of the order's currency.")
    category: Text | None = None


class AmountData(Data):
    """An amount may be absent from a thin order only."""

    order_id: Id | None
    amount_minor: Money | None = Field(default=None, description="Minor units. Absent only without subject.")
    currency: Currency | None = Field(default=None, description="ISO 4217 code. Absent only without subject.")


class OrderData(AmountData):
    order_id: Id
    kind: Literal["goods", "content", "membership"] | None = Field(default=None, description="What was bought.")
    access_until: EventTime | None = Field(default=None, description="End of bought access or membership.")
    paid_at: EventTime | None = None
    discount_minor: Money | None = None
    coupon_codes: list[Id] | None = None
    points_used: Count | None = None
    item_count: Count | None = None
    items: list[OrderItem] | None = None


class OrderEvent(Event):
    topic: ClassVar[str] = "superfan.orders"
    data: AmountData

    @property
    def key(self) -> bytes:
        if self.subject is None:
            return f"{self.account}/order:{self.platform}:{self.data.order_id}".encode()
        return super().key

    @model_validator(mode="after")
    def _thin_or_whole(self) -> Self:
        data = self.data
        if self.subject is None:
            # Its key is made of these.
            if self.platform is None:
                raise _missing("/platform", "an order without subject needs its platform")
            if data.order_id is None:
                raise _missing("/data/order_id", "an order without subject needs its order_id")
        absent = [name for name in ("amount_minor", "currency") if getattr(data, name) is None]
        if absent and (self.subject is not None or len(absent) == 1):
            raise _missing(f"/data/{absent[0]}", "only an order without subject may come without amount and currency")
        return self


def _missing(pointer: str, reason: str) -> PydanticCustomError:
    return PydanticCustomError("order_incomplete", "Field required: {reason}", {"pointer": pointer, "reason": reason})


class OrderCreated(OrderEvent):
    """An order is placed."""

    type: Literal["order.created"]
    data: OrderData


class OrderPaid(OrderEvent):
    """An order is paid."""

    type: Literal["order.paid"]
    data: OrderData


class OrderShipped(OrderEvent):
    """An order is on its way."""

    type: Literal["order.shipped"]
    data: OrderData


class OrderCompleted(OrderEvent):
    """An order is received and closed."""

    type: Literal["order.completed"]
    data: OrderData


class OrderCancelled(OrderEvent):
    """An order is cancelled."""

    type: Literal["order.cancelled"]
    data: OrderData


class RefundData(AmountData):
    refund_id: Id
    order_id: Id | None = Field(default=None, description="Some platforms do not name the order.")


class OrderRefunded(OrderEvent):
    """Money of an order is given back; `amount_minor` is the amount of this refund."""

    type: Literal["order.refunded"]
    data: RefundData


class EnrichedData(OrderData):
    buyer: Subject = Field(description="The subject who placed the order.")


class OrderEnriched(OrderEvent):
    """A look-up found buyer and content of a thin order."""

    emitted_by: ClassVar[tuple[str, ...]] = ("ingest", "profile")
    caused_by: ClassVar[frozenset[str]] = frozenset(
        {"order.created", "order.paid", "order.shipped", "order.completed", "order.cancelled", "order.refunded"}
    )
    type: Literal["order.enriched"]
    data: EnrichedData
