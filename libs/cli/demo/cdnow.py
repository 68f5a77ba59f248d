"""CDNOW: what 2,357 people bought of a music shop, from their first order in early 1997 until the middle of 1998.

The sample of Fader and Hardie, as the PyPI package `lifetimes` ships it: a line per order with the customer, the day,
the number of CDs and the amount in dollars. The package's wheel is fetched once, its hash checked, and only read as
data: nothing of it is imported.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from libs.cli.local.tools import Say, wheel_folder

ID_SPACE = "cdnow"
LAST_DAY = date(1998, 6, 30)
NOON = time(12)
FILE = ("lifetimes", "datasets", "CDNOW_sample.txt")


class Order(NamedTuple):
    """One order: `number` tells apart those of one customer on one day."""

    customer: int
    day: date
    number: int
    discs: int
    cents: int

    @property
    def order_id(self) -> str:
        return f"{self.customer}-{self.day:%Y%m%d}-{self.number}"


def fetch(say: Say) -> Path:
    """The data file; raises LaunchError when it is not on this machine and cannot be fetched."""
    return (
        wheel_folder("cdnow", "The orders of CDNOW are not on this machine", say)
        / "lifetimes"
        / "datasets"
        / "CDNOW_sample.txt"
    )


def read(path: Path) -> list[Order]:
    """All orders by day, then customer."""
    seen: Counter[tuple[int, date]] = Counter()
    orders = []
    for line in path.read_text().splitlines():
        _, customer, written, discs, dollars = line.split()
        day = datetime.strptime(written, "%Y%m%d").date()  # noqa: DTZ007 - a day, not an instant
        number = seen[int(customer), day]
        seen[int(customer), day] += 1
        orders.append(Order(int(customer), day, number, int(discs), int(Decimal(dollars) * 100)))
    return sorted(orders, key=lambda order: (order.day, order.customer, order.number))


def events(orders: list[Order], today: date, zone: ZoneInfo, currency: str, source: str) -> Iterator[dict[str, Any]]:
    """The orders as imported history, moved by whole days so that the last of them was placed yesterday, at noon in
    `zone`. The dollars are taken for the account's `currency`: value is compared in that one."""
    shift = today - timedelta(days=1) - LAST_DAY
    for order in orders:
        yield {
            "specversion": "1.0",
            "id": f"cdnow/{order.order_id}",
            "source": source,
            "type": "order.paid",
            "subject": f"{ID_SPACE}:{order.customer}",
            "platform": ID_SPACE,
            "time": datetime.combine(order.day + shift, NOON, zone).isoformat(),
            "backfill": True,
            "data": {
                "order_id": order.order_id,
                "amount_minor": order.cents,
                "currency": currency,
                "item_count": order.discs,
                "kind": "goods",
            },
        }
