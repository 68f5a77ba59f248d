"""Orders: one state per order, folded from many events under many ids, whatever their order and repetition.

A service that needs orders puts `add_order_tables(metadata)` into its tables and `migration.create_order_tables()` into
a migration, calls `fold_orders` with the events of a
batch in the transaction of that batch, keeps the content of `ORDER_TYPES` (`keep_data`), and lists `order_state` and
`refund_state` among its facts for a rebuild. It reads what people bought with `read_paid`.

- An order is (account, platform or '', order_id). `order.paid` makes it paid, from its earliest `paid_at` or `time` on.
- Its amount is that of the last `order.paid` by (time, source, id); without one, of the last `order.enriched`; then of
  any other event. Its buyer is who the last `order.enriched` says, else the subject of the last event of the order
  itself, else of a refund: he may be found later, and then the order moves to him.
- A refund is (account, platform or '', refund_id). It belongs to the order that any of its events names; without one it
  lowers what its subject has paid in all. Refunds of an order lower it to 0 at most, once its payment is known, and
  only in its own currency.
- Money follows payments and refunds alone. Being cancelled is a status: a cancelled order that was paid and never
  refunded has been paid.
- As of an instant: orders paid by then, less refunds made by then, with amounts and buyers as known today.
"""

from libs.common.orders.domain import ORDER_TYPES, Contribution, Order, OrderKey, Refund, RefundKey
from libs.common.orders.store import Changed, Folded, Purchases, fold_orders, read_paid
from libs.common.orders.tables import add_order_tables

__all__ = [
    "ORDER_TYPES",
    "Changed",
    "Contribution",
    "Folded",
    "Order",
    "OrderKey",
    "Purchases",
    "Refund",
    "RefundKey",
    "add_order_tables",
    "fold_orders",
    "read_paid",
]
